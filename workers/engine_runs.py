"""What an engine says of the requests that it works on: how far they are, and whether one that was closed is over.

Engines on our base tell at `/runs`; others need not, and nothing is known of theirs. It must not end an engine.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp

ASK_TIMEOUT = 10.0
ASK_EVERY = 0.2


class EngineRuns:
    """`session` speaks to the engine; it is another one after each of its starts, None while there is none."""

    def __init__(self, session: Callable[[], aiohttp.ClientSession | None]) -> None:
        self._session = session
        self._silent = False
        """The engine has no list of its requests."""

    async def progress(self) -> dict[str, float]:
        """How far the requests under way are, from 0 to 1 by their id; empty for engines that do not tell."""
        runs = await self._ask(ASK_TIMEOUT) or ()
        return {run["id"]: min(run["done"] / run["total"], 1.0) for run in runs if run.get("total")}

    async def let_go(
        self, job_id: str, *, others: Callable[[], int], bound: float, unless: Callable[[], bool]
    ) -> bool:
        """Wait until the engine no longer works on a request that was closed; False when it still does after `bound`
        seconds, or has not answered at all.

        `others` counts the requests of the same job that are still wanted; `unless` ends the wait. True for an engine
        that does not tell, and for one that has ended meanwhile.
        """
        session, end = self._session(), time.monotonic() + bound
        while session is not None and session is self._session() and not (self._silent or unless()):
            runs = await self._ask(min(ASK_TIMEOUT, max(end - time.monotonic(), 0.1)))
            # A second request of the same job has a suffix.
            if runs is not None and sum(run["id"].partition("#")[0] == job_id for run in runs) <= others():
                return True
            if time.monotonic() >= end:
                return session is not self._session() or self._silent
            await asyncio.sleep(ASK_EVERY)
        return True

    async def _ask(self, timeout: float) -> list[dict[str, Any]] | None:
        session = self._session()
        if session is None or self._silent:
            return None
        try:
            async with session.get("/runs", timeout=aiohttp.ClientTimeout(total=timeout)) as response:
                if response.status != 200:
                    self._silent = True
                    return None
                return list((await response.json())["runs"])
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError, RuntimeError):
            # RuntimeError: the session was closed a moment ago.
            return None
