"""A few places that many tenants want: who waits gets one in turn, so that a tenant waits for no other's whole queue.

It owns the order, within one process and its event loop. It must not know what is done at a place.
"""

from asyncio import CancelledError, Future, get_running_loop
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """`places` to be held at a time, at most `share` of them by one tenant; by default as many as there are.

    Tenants who wait are served round robin, and each one's own callers in the order in which they came. One who holds
    his share is passed over and keeps his turn.
    """

    def __init__(self, places: int, share: int | None = None) -> None:
        self._free = places
        self._share = places if share is None else share
        self._held: dict[str, int] = {}
        self._waiting: dict[str, deque[Future[None]]] = {}
        """By tenant, the one whose turn is next first. Nobody's queue is empty."""

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a place and hold it inside the block."""
        await self._take(tenant)
        try:
            yield
        finally:
            self._give_back(tenant)

    async def _take(self, tenant: str) -> None:
        place = get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        self._serve()
        try:
            await place
        except CancelledError:
            if place.cancelled():
                self._leave(tenant, place)
            else:
                # It was given in the same moment.
                self._give_back(tenant)
            raise

    def _give_back(self, tenant: str) -> None:
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._serve()

    def _serve(self) -> None:
        while self._free and (tenant := self._next()) is not None:
            queue = self._waiting.pop(tenant)
            place = queue.popleft()
            if queue:
                self._waiting[tenant] = queue  # behind all others
            if not place.done():
                self._free -= 1
                self._held[tenant] = self._held.get(tenant, 0) + 1
                place.set_result(None)

    def _next(self) -> str | None:
        below = (tenant for tenant in self._waiting if self._held.get(tenant, 0) < self._share)
        return next(below, None)

    def _leave(self, tenant: str, place: Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue and place in queue:
            queue.remove(place)
            if not queue:
                del self._waiting[tenant]
