"""Room at an engine: requests go in side by side, or one goes in alone. It must not know what a request is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Room:
    """Who wants to be alone goes before those who do not: they wait until it has left."""

    def __init__(self) -> None:
        self._inside = 0
        self._alone = 0
        """Those who want to be alone, and the one that is."""
        self._taken = False
        self._waiting: dict[asyncio.Future[None], None] = {}
        """In the order in which they came."""

    @property
    def closed(self) -> bool:
        """Somebody is alone inside, or waits to be: who comes now has to wait."""
        return self._alone > 0

    def hold(self) -> None:
        """Stay inside after having left, until `let`: what was done inside is not over yet."""
        self._inside += 1

    def let(self) -> None:
        self._inside -= 1
        self._wake()

    @asynccontextmanager
    async def enter(self, *, alone: bool) -> AsyncIterator[None]:
        """Be inside; with `alone` when the others have left, one such after the other."""
        async with self._exclusively() if alone else self._beside():
            yield

    @asynccontextmanager
    async def _beside(self) -> AsyncIterator[None]:
        await self._until(lambda: not self.closed)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._wake()

    @asynccontextmanager
    async def _exclusively(self) -> AsyncIterator[None]:
        self._alone += 1
        try:
            await self._until(lambda: self._inside == 0 and not self._taken)
            self._taken = True
            try:
                yield
            finally:
                self._taken = False
        finally:
            self._alone -= 1
            self._wake()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[turn] = None
            try:
                await turn
            finally:
                self._waiting.pop(turn)

    def _wake(self) -> None:
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
