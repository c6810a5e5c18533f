"""Whether this Redis keeps what it is given: with AOF over a restart, without eviction over a full memory.

Durable jobs come back from SQL either way; waiting interactive calls, live leases and the order of waiting jobs would
not. `INFO` tells both (fields `aof_enabled`, `maxmemory_policy`); managed servers that refuse `CONFIG` answer it.
"""

import logging
from collections.abc import Iterator
from typing import Any

from inferq import errors
from queues.connection import Client, translated

log = logging.getLogger(__name__)


async def check(redis: Client, *, strict: bool) -> None:
    """Say what this Redis would lose. A Redis that is away says nothing. Raises ConfigError for a `strict` caller."""
    try:
        async with translated():
            info = {**await redis.info("persistence"), **await redis.info("memory")}
    except errors.QueueUnavailable as error:
        log.warning("whether Redis keeps what it is given is not known yet: %s", error.message)
        return
    found = "; ".join(_shortcomings(info))
    if found and strict:
        raise errors.ConfigError(f"{found} (asked for by deployment.environment: production)")
    if found:
        log.warning("%s", found)


def _shortcomings(info: dict[str, Any]) -> Iterator[str]:
    if not info["aof_enabled"]:
        yield "Redis forgets what waits when it restarts: set `appendonly yes` in its configuration"
    if (policy := info["maxmemory_policy"]) != "noeviction":
        yield f"Redis drops keys when its memory is full: set `maxmemory-policy noeviction` instead of {policy}"
