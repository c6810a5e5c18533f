"""One scheduler leads: a Redis lock with a time-out. A follower takes over when the leader is gone.

The lock keeps two schedulers from doing work twice; what must not happen twice is guarded where it is written (the
recorder's offset, the scripts' comparisons), so a lock held by two for a moment harms nothing.
"""

import secrets

from queues.connection import Client, translated

LOCK_TTL = 10

_EXTEND = (
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('EXPIRE', KEYS[1], ARGV[2])"
)
_RELEASE = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])"


class Leadership:
    def __init__(self, redis: Client, prefix: str):
        self._redis = redis
        self._key = f"{prefix}leader"
        self._token = secrets.token_hex(8)
        self._extend = redis.register_script(_EXTEND)
        self._release = redis.register_script(_RELEASE)

    async def hold(self) -> bool:
        """Keep or take the lock; True while this process leads. Call at least each third of its time-out."""
        async with translated():
            if await self._extend(keys=[self._key], args=[self._token, LOCK_TTL]):
                return True
            return bool(await self._redis.set(self._key, self._token, nx=True, ex=LOCK_TTL))

    async def release(self) -> None:
        async with translated():
            await self._release(keys=[self._key], args=[self._token])
