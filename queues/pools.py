"""Pools of connections, to one Redis or to one behind Sentinel. There the master's address is asked for at each new
connection, so that after a failover everybody meets at the new one.
"""

from typing import Any

import redis.exceptions
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.sentinel import Sentinel as SyncSentinel

from inferq.config.redis_url import SentinelAddress


class Silence:
    """A pool that gives no connections while Redis is known to say nothing; see `queues.connection.take_pulse`."""

    silent = False

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        if self.silent:
            raise redis.exceptions.ConnectionError("it gives no answer")
        return await super().get_connection(*args, **kwargs)  # type: ignore[misc]


class WaitingPool(Silence, BlockingConnectionPool):
    """Connections to one server; whoever finds none free waits."""


class WaitingSentinelPool(Silence, SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the master of the moment; whoever finds none free waits. Closes those to the sentinels too."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def pool_of(address: SentinelAddress, timeouts: dict[str, float], **pool: Any) -> WaitingSentinelPool:
    """A pool for asyncio. `timeouts` are the sockets', to the sentinels and to Redis; `pool` is the pool's own."""
    asked = {**timeouts, **address.sentinel_login}
    sentinel = Sentinel(address.hosts, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    return WaitingSentinelPool(  # type: ignore[no-untyped-call]
        address.master, sentinel, **timeouts, **address.login, **pool
    )


def client_of(address: SentinelAddress, **options: Any) -> Any:
    """A client for code without asyncio."""
    asked = {**options, **address.sentinel_login}
    sentinel = SyncSentinel(address.hosts, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    return sentinel.master_for(address.master, **options, **address.login)  # type: ignore[no-untyped-call]
