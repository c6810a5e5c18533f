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

# It begins with a write that frees: a full Redis would refuse the lock, and without a leader it is never emptied.
_HOLD = """
redis.call('ZREM', KEYS[2], '')
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])"


class Leadership:
    def __init__(self, redis: Client, prefix: str):
        self._redis = redis
        self._key = f"{prefix}leader"
        self._leases = f"{prefix}leases"
        self._token = secrets.token_hex(8)
        self._hold = redis.register_script(_HOLD)
        self._release = redis.register_script(_RELEASE)

    async def hold(self) -> bool:
        """Keep or take the lock; True while this process leads. To be called each `HOLD_EVERY` seconds.

        Raises QueueUnavailable when Redis is away, or does not answer before the lock ends.
        """
        try:
            async with asyncio.timeout(LOCK_TTL), translated():
                args = [self._token, int(LOCK_TTL * 1000)]
                return bool(await self._hold(keys=[self._key, self._leases], args=args))
        except TimeoutError as error:
            raise errors.QueueUnavailable("Redis does not answer") from error

    async def release(self) -> None:
        async with translated():
            await self._release(keys=[self._key], args=[self._token])
