"""Noticing at once that a caller has hung up, by waiting for ASGI's disconnect message beside the real work."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive


class CallerLeft(Exception):
    """The connection is gone; nobody reads what would be sent now."""


class UntilDeparture:
    """``async with UntilDeparture(receive):`` the block is cancelled and CallerLeft raised when the caller leaves.

    Built like `asyncio.timeout`: the departure cancels the current task, and only that cancellation is turned into
    CallerLeft, so a cancellation from outside (the server stops) still goes through. The request's body must have been
    read; the only message left is then the disconnect.
    """

    def __init__(self, receive: Receive):
        self._receive = receive
        self._departed = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._watch = asyncio.create_task(self._watch_caller())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        ours = self._departed and self._task.uncancel() <= self._cancelling
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise CallerLeft from error

    async def _watch_caller(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._departed = True
        self._task.cancel()
