"""Puts the pieces together that a gateway process (api, watcher) needs. It decides nothing."""

import asyncio
import contextlib
import logging

from inferq import errors, process
from inferq.config import Settings
from inferq.hooks import Hooks
from queues import layout
from queues.cache import ResultCache
from queues.celery_app import make_app
from queues.connection import Client, connect, take_pulse
from queues.controls import Controls
from queues.hook_counts import REPORT_EVERY, HookReport
from queues.intake import Intake
from queues.queue import JobQueue
from queues.replies import ReplyReader
from queues.revival import Reviver
from queues.signals import Signals
from storage import Storage

log = logging.getLogger(__name__)


class Gateway:
    """What one gateway process needs of the queue. Starts with Redis away."""

    def __init__(self, settings: Settings, storage: Storage):
        self._redis: Client = connect(settings, connections=64)
        self._signals = Signals(make_app(settings))
        self.queue = JobQueue(self._redis, settings, storage.keys)
        self.hooks = Hooks(settings.hooks)
        self._report = HookReport(self.hooks, self._redis, settings.queue.prefix)
        if self.hooks:
            storage.ledger.database.listen(self.hooks.after_finishes)
        self.intake = Intake(self.queue, storage, self._signals, settings, self.hooks)
        self.reviver = Reviver(self.queue, storage, self._signals, settings)
        self.replies = ReplyReader(self._redis, self.queue, settings.queue.prefix)
        self.cache = ResultCache(self._redis, settings)
        self.controls = Controls(self._redis, settings, storage.pauses)
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._filing: asyncio.Task[None] | None = None

    async def start(self, *, replies: bool = True) -> None:
        """Begin; `replies=False` for a process that awaits no answers. Raises ConfigError: keys of another release."""
        await layout.check_at_start(self._redis, self._settings.queue)
        self._tasks.append(asyncio.create_task(layout.watch(self._redis, self._settings.queue)))
        self._tasks.append(asyncio.create_task(take_pulse(self._redis, self._settings)))
        if self.hooks:
            self._tasks.append(asyncio.create_task(self._tell_of_hooks()))
        self._signals.start()
        if replies:
            self.replies.start()
            self._filing = asyncio.create_task(self._file_lost())

    async def stop(self) -> None:
        await process.end_tasks(self._tasks)
        if self._filing:
            await process.end_tasks([self._filing])
            await self.replies.stop()
        self._signals.stop()
        await self._redis.aclose()

    async def _tell_of_hooks(self) -> None:
        while True:
            with contextlib.suppress(errors.QueueUnavailable):
                await self._report.run_once()
            await asyncio.sleep(REPORT_EVERY)

    async def _file_lost(self) -> None:
        while True:
            spec = await self.replies.lost.get()
            try:
                await self.intake.file_lost(spec)
            except errors.StoreUnavailable as error:
                log.warning("job %s was lost by Redis and cannot be filed: %s", spec.id, error.message)


def open_gateway(settings: Settings, storage: Storage) -> Gateway:
    return Gateway(settings, storage)
