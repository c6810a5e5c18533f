"""Blocking work of one pull, in threads of its own that end with it.

A thread cannot be cancelled. So who is cancelled raises a flag, the work looks at it between two pieces, and nobody
goes on before the thread has let go: what it writes to belongs to the next pull of that name as soon as the lock does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Left(Exception):
    """Nobody waits for this work any more."""


class Hands:
    """A few threads for one pull."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "pull")
        self._left = threading.Event()

    def check(self) -> None:
        """Called in a thread between two pieces of its work. Raises Left."""
        if self._left.is_set():
            raise Left

    async def do(self, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        """What the work returns or raises. Cancelled, all work of this pull ends, and this waits for it."""
        future = asyncio.wrap_future(self._pool.submit(work, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._left.set()
            await _ended(future)
            raise

    def close(self) -> None:
        self._left.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _ended(future: asyncio.Future[Result]) -> None:
    """Wait for it whatever happens, also through further cancelling; the caller is on its way out already."""
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # looked at, so that nobody complains that it never was
