"""How the calls of hooks came out, of all processes together: each adds its own to one hash, and /metrics shows it.

Numbers are lost with Redis' memory, and those of a process' last seconds with it. Nothing waits for them.
"""

import orjson

from inferq.hooks import Counts, Hooks
from queues.connection import Client, translated

REPORT_EVERY = 2.0


class HookReport:
    """What this process has told of its hooks."""

    def __init__(self, hooks: Hooks, redis: Client, prefix: str) -> None:
        self._hooks = hooks
        self._redis = redis
        self._key = _key(prefix)
        self._told = Counts()

    async def run_once(self) -> None:
        """Add what is new. Raises QueueUnavailable; it is then told the next time."""
        counts = self._hooks.counts
        new = counts - self._told
        if not new:
            return
        async with translated():
            pipe = self._redis.pipeline(transaction=True)
            for names, number in new.items():
                pipe.hincrby(self._key, orjson.dumps(names).decode(), number)
            await pipe.execute()
        self._told = counts


async def hook_counts(redis: Client, prefix: str) -> Counts:
    """The calls of all processes. Raises QueueUnavailable."""
    async with translated():
        found = await redis.hgetall(_key(prefix))
    counts = Counts()
    for field, number in found.items():
        hook, function, outcome = orjson.loads(field)
        counts[hook, function, outcome] = int(number)
    return counts


def _key(prefix: str) -> str:
    return f"{prefix}hooks"
