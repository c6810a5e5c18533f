"""The releaser: scheduled jobs become queued ones when their time has come and those they waited for have ended.

SQL first, then Redis; what dies between the two is mended by the reconciler, because the row then says queued. What
takes parts of other jobs' results is filled in first, beside the loop: files among them may have to be fetched.
"""

import time

from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.job import Job
from queues.capacity import Capacities
from queues.door import Door
from queues.errands import Errands
from queues.filling import Filling
from queues.queue import JobQueue
from queues.signals import Signals
from storage import Storage
from storage.waiting import Due

BATCH = 200


class Releaser:
    def __init__(
        self,
        queue: JobQueue,
        storage: Storage,
        signals: Signals,
        settings: Settings,
        catalog: Catalog,
        door: Door,
    ):
        self._queue = queue
        self._ledger = storage.ledger
        self._waiting = storage.waiting
        self._signals = signals
        self._capacities = Capacities(queue, settings)
        self._patience = settings.queue.queue_timeout
        self._filling = Filling(queue, storage, settings, catalog, door)
        self.errands = Errands("filling a request")

    async def run_once(self) -> int:
        """Give up what is too late, and release what is due; how many were released."""
        while len(await self._waiting.expire(now=time.time(), limit=BATCH)) == BATCH:
            pass
        return sum([await self._release(due) for due in await self._waiting.due(now=time.time())])

    async def _release(self, due: Due) -> int:
        """As many as their queue has room for: what was scheduled meets the same bounds as what comes now."""
        released, room = 0, await self._queue.room(due.model, due.tenant, due.lane)
        while released < room:
            # Without Redis what is released would wait as badly as before, and look as if it did not.
            read_at = await self._queue.now()
            jobs = await self._waiting.release(
                now=time.time(), limit=min(room - released, BATCH), patience=self._patience, of=due
            )
            if not jobs:
                break
            await self._enter(jobs, read_at)
            released += len(jobs)
        return released

    async def fill_once(self) -> None:
        """Begin to fill what can be filled. To be called again once `errands` have changed."""
        errands = self.errands
        if not errands.free:
            return
        found = await self._waiting.unfilled(
            now=time.time(), limit=errands.free, without=errands.busy, tenants=errands.crowded
        )
        for job_id, tenant in found:
            errands.start(job_id, tenant, self._filling.fill(job_id))

    async def _enter(self, jobs: list[Job], read_at: float) -> None:
        capacities = {model: await self._capacities.of(model) for model in {job.spec.model for job in jobs}}
        standings = await self._queue.restore(jobs, capacities, read_at=read_at)
        for job, standing in zip(jobs, standings, strict=True):
            if standing is None:
                continue
            self._signals.sent(job.spec, again=job.generation > 0)
            if standing.bell_wanted:
                self._signals.ring(job.spec.model)
        await self._ledger.mark_queued(job.id for job in jobs)
