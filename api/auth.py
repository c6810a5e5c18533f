"""Who calls, and whether that is enough: API keys, the ladder of roles, and a short memory of both.

Deny by default: a route names the access it needs (`api.routes`), and only `Access.PUBLIC` is open. Nothing here looks
at the URL, the host or the peer's address.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import TypeVar

from inferq import errors
from inferq.lanes import Lane
from storage.keys import ApiKey

FRESH = 10.0
"""Seconds an answer of the key store is believed, so a revoked key works no longer than that."""
STALE = 300.0
"""Seconds a key that was good stays good while the key store is away: interactive calls do not need SQL."""
MEMORY = 1024
"""Answers remembered per kind (good, unknown), so a flood of made-up keys cannot grow the process."""
LONGEST_KEY = 256

T = TypeVar("T")

_HEADERS = (b"api-key", b"x-api-key")


class Access(IntEnum):
    """The ladder; each step may do all that the steps below may."""

    PUBLIC = 0
    READONLY = 1
    USER = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Caller:
    key_id: str
    name: str
    access: Access
    tenant: str
    weight: float
    lane: Lane = Lane.HIGH
    """The highest that its jobs may use."""

    @property
    def sees_all(self) -> bool:
        """Users see their own tenant's jobs; read-only keys (dashboards) and administrators see everybody's."""
        return self.access is not Access.USER

    def sees(self, tenant: str) -> bool:
        return self.sees_all or tenant == self.tenant


def presented_key(headers: dict[bytes, bytes]) -> str | None:
    """The key of a request: ``Authorization: Bearer``, else the headers that Azure-style clients send."""
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and credentials:
        return credentials.strip().decode("latin-1")
    for name in _HEADERS:
        if headers.get(name):
            return headers[name].strip().decode("latin-1")
    return None


class KeyCache:
    """Remembers what the key store said. Plain keys are not kept, only their digests."""

    def __init__(
        self, find: Callable[[str], Awaitable[ApiKey | None]], *, clock: Callable[[], float] = time.monotonic
    ):
        self._find = find
        self._clock = clock
        self._good: dict[bytes, tuple[float, Caller]] = {}
        self._unknown: dict[bytes, float] = {}
        self._asking: dict[bytes, asyncio.Future[Caller | None]] = {}

    async def caller(self, key: str) -> Caller | None:
        """The caller behind a key, None for a key nobody knows. Raises StoreUnavailable."""
        if len(key) > LONGEST_KEY:
            return None
        digest, now = sha256(key.encode()).digest(), self._clock()
        known = self._good.get(digest)
        if known and now - known[0] < FRESH:
            return known[1]
        if now - self._unknown.get(digest, -FRESH) < FRESH:
            return None
        try:
            return await self._ask(digest, key)
        except errors.StoreUnavailable:
            if known and now - known[0] < STALE:
                return known[1]
            raise

    def forget(self) -> None:
        """Believe nothing any more; called when this process changes a key."""
        self._good.clear()
        self._unknown.clear()

    async def _ask(self, digest: bytes, key: str) -> Caller | None:
        """One question at a time per key: many calls at once with one key would all miss together."""
        asking = self._asking.get(digest)
        if asking is None:
            asking = self._asking[digest] = asyncio.ensure_future(self._look_up(digest, key))
            asking.add_done_callback(lambda _: self._asking.pop(digest, None))
        return await asyncio.shield(asking)

    async def _look_up(self, digest: bytes, key: str) -> Caller | None:
        found = await self._find(key)
        now = self._clock()
        if found is None:
            self._good.pop(digest, None)
            _remember(self._unknown, digest, now)
            return None
        caller = Caller(found.id, found.name, Access[found.role.name], found.tenant, found.weight, found.lane)
        self._unknown.pop(digest, None)
        _remember(self._good, digest, (now, caller))
        return caller


def _remember(memory: dict[bytes, T], digest: bytes, value: T) -> None:
    memory.pop(digest, None)
    if len(memory) >= MEMORY:
        del memory[next(iter(memory))]
    memory[digest] = value
