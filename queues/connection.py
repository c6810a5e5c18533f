"""Connections to Redis: sized pools, time-outs, and redis-py's errors turned into ours.

Two traps decide the numbers: a blocking read must be shorter than the socket time-out, or it raises; and a pool that
is too small raises at the next command instead of waiting, so commands share a waiting pool.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis
import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from inferq import errors
from inferq.config import Settings
from inferq.config.redis_url import sentinel_of
from queues import pools

log = logging.getLogger(__name__)

Client = Any
"""A connection pool. redis-py types every answer as a union over its decoding modes; ours are always bytes."""

FULL = "Redis is full (maxmemory); nothing can be queued"
SOCKET_TIMEOUT = 10.0
CONNECT_TIMEOUT = 3.0
BLOCK_MS = 2000
"""Longest blocking read; well under SOCKET_TIMEOUT."""
PULSE_EVERY = 1.0
PULSE_PATIENCE = 3.0
"""Seconds after which a Redis that was asked for nothing but a sign of life counts as away."""


def connect(settings: Settings, *, connections: int = 32) -> Client:
    """A client whose commands wait for a free connection (5 s) and are tried again, once, when their connection breaks.

    After an outage each connection of the pool may be such a one. Mutating calls bear a repeat. A time-out is not
    tried again: whoever waits has waited long enough.
    """
    timeouts = {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT}
    options: dict[str, Any] = {
        "max_connections": connections,
        "timeout": 5,
        "health_check_interval": 0,
        # Of redis.asyncio: redis-py's other Retry is taken without a word, and awaits nothing that it could retry.
        "retry": Retry(ExponentialBackoff(cap=0.2, base=0.02), 1, (redis.exceptions.ConnectionError,)),
        "client_name": "inferq",
    }
    address = sentinel_of(settings.redis_url)
    if address:
        return Redis.from_pool(pools.pool_of(address, timeouts, **options))
    return Redis.from_pool(pools.WaitingPool.from_url(settings.redis_url, **timeouts, **options))


async def take_pulse(client: Client, settings: Settings) -> None:
    """For ever: ask Redis for a sign of life, and let the commands of `client` fail at once while there is none.

    A frozen host accepts connections and says nothing. Each command would wait for its time-out, and a request asks for
    several things one after the other.
    """
    probe = connect(settings, connections=1)
    pool: pools.Silence = client.connection_pool
    try:
        while True:
            try:
                async with asyncio.timeout(PULSE_PATIENCE):
                    await probe.ping()
                silent = False
            except (TimeoutError, redis.exceptions.TimeoutError):
                silent = True
            except (redis.exceptions.RedisError, OSError):
                silent = False  # what refuses does so at once by itself
            if silent and not pool.silent:
                log.warning("Redis gives no answer; its commands are refused until it does")
            pool.silent = silent
            await asyncio.sleep(PULSE_EVERY)
    finally:
        await probe.aclose()


def connect_sync(settings: Settings, *, patience: float, name: str) -> Client:
    """A client for code without asyncio, whose commands wait at most `patience` seconds for an answer."""
    options: dict[str, Any] = {
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "client_name": name,
    }
    address = sentinel_of(settings.redis_url)
    if address:
        return pools.client_of(address, **options)
    return redis.Redis.from_url(settings.redis_url, **options)


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Within it every Redis error is a QueueUnavailable that says what happened."""
    try:
        yield
    except redis.exceptions.ResponseError as error:
        # Redis 6.2 reports memory that ran out inside a script as a plain error.
        if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM command not allowed" in str(error):
            raise errors.QueueUnavailable(FULL, retry_after=10) from error
        raise errors.QueueUnavailable(f"Redis refused a command: {error}", retry_after=2) from error
    except (redis.exceptions.RedisError, OSError) as error:
        text = str(error) or type(error).__name__
        raise errors.QueueUnavailable(f"Redis is away: {text}", retry_after=2) from error
