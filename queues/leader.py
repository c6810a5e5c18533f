"""One scheduler leads: a Redis lock with a short time-out. A follower takes over when the leader is gone.

The time-out is short, because ends of jobs, pauses between attempts and new replicas wait for a leader. So two may
lead for a moment: one that was frozen, or does not hear Redis, believes in its lock until it looks again. That harms
nothing, because the lock only keeps work from being done twice; what must not happen twice is compared where it is
written:

- the finish stream: the recorder's offset, in the SQL transaction that commits its events
- leases, pauses, deadlines, other models: the scripts compare the job's state
- queueing again from SQL: created only if absent, from a row that was read just now
- scheduled and recurring jobs, webhooks: an UPDATE that names the state, or the time, that was read
- placement: each leader writes what follows from the same facts; a later pass replaces an earlier one
"""

import asyncio
import secrets

from inferq import errors
from queues.connection import Client, translated

LOCK_TTL = 3.0
"""Seconds after which the lock of a leader that is gone may be taken."""
HOLD_EVERY = 0.5

_EXTEND = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])"
_RELEASE = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])"


class Leadership:
    def __init__(self, redis: Client, prefix: str):
        self._redis = redis
        self._key = f"{prefix}leader"
        self._token = secrets.token_hex(8)
        self._extend = redis.register_script(_EXTEND)
        self._release = redis.register_script(_RELEASE)

    async def hold(self) -> bool:
        """Keep or take the lock; True while this process leads. To be called each `HOLD_EVERY` seconds.

        Raises QueueUnavailable when Redis is away, or does not answer before the lock ends.
        """
        try:
            async with asyncio.timeout(LOCK_TTL), translated():
                return await self._extended() or await self._taken()
        except TimeoutError as error:
            raise errors.QueueUnavailable("Redis does not answer") from error

    async def _extended(self) -> bool:
        return bool(await self._extend(keys=[self._key], args=[self._token, _millis(LOCK_TTL)]))

    async def _taken(self) -> bool:
        return bool(await self._redis.set(self._key, self._token, nx=True, px=_millis(LOCK_TTL)))

    async def release(self) -> None:
        async with translated():
            await self._release(keys=[self._key], args=[self._token])


def _millis(seconds: float) -> int:
    return int(seconds * 1000)
