"""The watcher's two loops: files in, results out. Each survives every error, and pauses while something is away.

Events wake the first loop early; what it does follows from looking at the directory alone.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable

from inferq import errors
from inferq.config import Settings
from queues import Gateway
from storage import Storage
from storage.texts import clean
from watchers import drops, names, recovery
from watchers.complaints import Complaints
from watchers.folders import Folders
from watchers.hints import Hints
from watchers.inbox import Inbox, Verdict
from watchers.outbox import BATCH, Outbox
from watchers.sightings import MOST, Sightings

log = logging.getLogger(__name__)

SCAN_EVERY = 2.0
SHORTEST_WAIT = 0.02
"""Hints of this many seconds are looked at together."""
BUSY_POLL, IDLE_POLL = 0.5, 5.0
"""Seconds between two questions for finished jobs, while files are under way and while none are."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
FILE_PAUSE = 2.0
"""Seconds until a file is tried again that met a fault of its own."""
DEFECT_PAUSE = 60.0
"""The same after an error that nobody foresaw."""
LONGEST_FULL = 10.0
"""Longest pause for a bound: the queue may empty sooner than was estimated."""
_ALL = "all files wait"

SLOW = 0.25
"""Seconds after which a file that is being taken stands aside, and the next one is taken beside it."""
MOST_ASIDE = 8
"""Files that are taken at a time: their own files may have to be fetched."""


class Watcher:
    def __init__(self, settings: Settings, folders: Folders, storage: Storage, gateway: Gateway) -> None:
        self._folders = folders
        self._ledger = storage.ledger
        self._inbox = Inbox(folders, settings, gateway, storage)
        self._aside: dict[str, asyncio.Task[errors.StoreUnavailable | None]] = {}
        self._outbox = Outbox(folders, storage.ledger, storage.artifacts, settings.api.max_body)
        self._sightings = Sightings()
        self._complaints = Complaints(log)
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self._next_scan = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping`. Whatever is cut off then is taken up after the next start."""
        self._loop = asyncio.get_running_loop()
        self._hints = Hints(self._folders.inbox, self._wake_from_thread)
        work = asyncio.create_task(self._work())
        await stopping.wait()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await asyncio.to_thread(self._hints.stop)

    def _wake_from_thread(self) -> None:
        # The loop may be closed already when the last events come.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _work(self) -> None:
        await self._until_done("sorting out the temp folder", self._recover)
        log.info("watching %s", self._folders.inbox)
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._forever("taking files", self._look_and_take))
            group.create_task(self._forever("delivering results", self._deliver))

    async def _recover(self) -> None:
        await recovery.recover(self._folders, self._ledger)

    async def _until_done(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        pause = FIRST_PAUSE
        while not await self._guarded(name, step):
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _forever(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._until_done(name, step)

    async def _guarded(self, name: str, step: Callable[[], Awaitable[None]]) -> bool:
        """Run a step; False when it failed. The one place where errors of the loops end."""
        try:
            await step()
        except errors.InferqError as error:
            self._complaints.tell(name, error.message)
        except OSError as error:
            self._complaints.tell(name, str(error))
            with contextlib.suppress(OSError):
                self._folders.make()
        except Exception:
            # A defect in one pass must not end the loop for good.
            log.exception("%s failed, and is tried again", name)
        else:
            self._complaints.settle(name)
            return True
        return False

    async def _look_and_take(self) -> None:
        """One look at what changed, or at everything when that is due; take what is ready; wait."""
        await self._look()
        self._collect()
        for name in self._sightings.ready(time.monotonic()):
            if len(self._aside) >= MOST_ASIDE:
                break
            if not self._sightings.is_held(name, time.monotonic()):
                await self._take_or_set_aside(name)
        due = self._next_scan
        if len(self._aside) < MOST_ASIDE:
            due = min(due, self._sightings.next_at())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(due - time.monotonic(), SHORTEST_WAIT)):
                await self._wake.wait()
                await asyncio.sleep(SHORTEST_WAIT)

    async def _take_or_set_aside(self, name: str) -> None:
        """Files become jobs in their order, but one whose files are slow to come holds up no other."""
        if name in self._aside:
            # It was changed meanwhile; what is under way will find that out.
            self._sightings.hold(name, math.inf)
            return
        task = self._aside[name] = self._group.create_task(self._taken_or_why(name))
        await asyncio.wait([task], timeout=SLOW)
        if task.done():
            self._collect()
        else:
            self._sightings.hold(name, math.inf)
            task.add_done_callback(lambda _: self._wake.set())

    def _collect(self) -> None:
        """Forget what was taken. Raises the StoreUnavailable that one of them met."""
        for name, task in list(self._aside.items()):
            if task.done():
                del self._aside[name]
                self._sightings.release(name)
                if error := task.result():
                    raise error

    async def _taken_or_why(self, name: str) -> errors.StoreUnavailable | None:
        try:
            await self._take(name)
        except errors.StoreUnavailable as error:
            return error
        return None

    async def _look(self) -> None:
        self._wake.clear()
        hinted = self._hints.drain()
        if time.monotonic() >= self._next_scan:
            self._hints.keep_watching(time.monotonic())
            found = await asyncio.to_thread(drops.scan, self._folders.inbox, MOST)
            self._sightings.look_at_all(found, time.monotonic())
            self._next_scan = time.monotonic() + SCAN_EVERY
        for name in {*hinted, *self._sightings.to_look_at(time.monotonic())}:
            if names.is_job_file(name):
                seen = drops.identify(self._folders.inbox / name)
                self._sightings.look(name, seen, time.monotonic(), renamed=hinted.get(name, False))

    async def _take(self, name: str) -> None:
        sight = self._sightings[name]
        try:
            verdict = await self._inbox.take(name, sight)
        except errors.AtCapacity as error:
            self._hold_at_capacity(name, error)
            return
        except errors.StoreUnavailable:
            raise
        except (OSError, errors.Conflict, errors.Unavailable) as error:
            self._sightings.hold(name, time.monotonic() + FILE_PAUSE)
            self._complaints.tell(f"{name} waits", str(error))
            return
        except Exception:
            # It must not stand in front of the other files.
            self._sightings.hold(name, time.monotonic() + DEFECT_PAUSE)
            log.exception("%s could not be taken", clean(name))
            return
        self._complaints.settle(f"{name} waits")
        self._complaints.settle(_ALL)
        if sight.model is not None:
            self._complaints.settle(f"files for {sight.model} wait")
        if verdict is Verdict.DONE:
            self._sightings.forget(name)
            self._taken.set()
        else:
            self._sightings.hold(name, time.monotonic() + FIRST_PAUSE)

    def _hold_at_capacity(self, name: str, error: errors.AtCapacity) -> None:
        """1. What all files share is used up: they wait together, and one is tried. 2. The queue of a model is full: so
        do those for it. 3. Else the file alone: there may be no room for jobs that are scheduled, but for others.
        """
        until = time.monotonic() + min(error.retry_after or FIRST_PAUSE, LONGEST_FULL)
        model, message = error.details.get("model"), error.message
        if isinstance(error, errors.RateLimited | errors.BudgetSpent):
            # What follows is how long it will last, which is another time at each try.
            subject, message = _ALL, message.partition(";")[0]
            self._sightings.hold_all(until)
        elif model is not None:
            subject = f"files for {model} wait"
            self._sightings.hold_model(name, model, until)
        else:
            subject = f"{name} waits"
            self._sightings.hold(name, until)
        self._complaints.tell(subject, message)

    async def _deliver(self) -> None:
        """Deliver what is ready, and wait; not long while files are under way."""
        if await self._outbox.deliver_some() >= BATCH:
            return
        self._taken.clear()
        if await asyncio.to_thread(recovery.has_files, self._folders):
            await asyncio.sleep(BUSY_POLL)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_POLL):
                await self._taken.wait()
