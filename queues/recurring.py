"""Recurring jobs: what is due becomes a job, in one transaction with the schedule's step to its next time.

So a run comes once, whoever else leads, dies or sets the clock back. Times that passed while nothing ran come once
together. The job is checked as a new one each time: models change, and what is fetched by its address may have.
"""

import logging
import time
from dataclasses import replace

import orjson

from inferq import errors, request
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.hooks import Hooks
from inferq.job import JobSpec
from inferq.recurrence import Recurrence
from inferq.terms import terms_of
from queues.door import Door
from queues.errands import Errands
from queues.queue import JobQueue
from storage import Storage
from storage.schedules import Schedule

log = logging.getLogger(__name__)


class Recurring:
    def __init__(
        self,
        queue: JobQueue,
        storage: Storage,
        settings: Settings,
        catalog: Catalog,
        door: Door,
        hooks: Hooks | None = None,
    ) -> None:
        self._hooks = hooks
        self._queue = queue
        self._schedules = storage.schedules
        self._settings = settings
        self._catalog = catalog
        self._door = door
        self.errands = Errands("the run of schedule")

    async def run_once(self) -> None:
        """Begin with schedules whose time has come. To be called again once `errands` have changed."""
        errands = self.errands
        if not errands.free:
            return
        found = await self._schedules.due(
            now=time.time(), limit=errands.free, without=errands.busy, tenants=errands.crowded
        )
        for schedule in found:
            errands.start(schedule.id, schedule.tenant, self._fire(schedule))

    async def _fire(self, schedule: Schedule) -> None:
        """Raises Unavailable when it may go better in a second; the schedule then stays due."""
        next_at = _next(schedule)
        try:
            spec = await self._spec(schedule)
            await self._queue.charge([spec])
            await self._note(schedule, spec, next_at, None)
        except errors.Unavailable:
            raise
        except errors.InferqError as error:
            log.warning("a run of schedule %s is left out: %s", schedule.name, error.message)
            await self._note(schedule, None, next_at, error.message)

    async def _note(
        self, schedule: Schedule, spec: JobSpec | None, next_at: float | None, error: str | None
    ) -> None:
        most = self._settings.queue.max_scheduled_jobs
        fired = await self._schedules.fire(schedule, spec, next_at=next_at, error=error, most=most)
        if fired and spec is not None and self._hooks:
            self._hooks.after_accept(spec)

    async def _spec(self, schedule: Schedule) -> JobSpec:
        envelope = orjson.loads(schedule.request)
        now = time.time()
        terms = terms_of(envelope, now=now)
        endpoint, body = request.unfold(self._catalog, envelope)
        checked = request.check(self._catalog, endpoint, body, terms=terms)
        await self._door.admit(checked, tenant=schedule.tenant, unattended=True, bounded=False)
        spec = request.job_spec(
            checked,
            self._settings,
            tenant=schedule.tenant,
            durable=True,
            kept=True,
            source=f"schedule:{schedule.name}",
        )
        return replace(spec, due_at=now)


def _next(schedule: Schedule) -> float | None:
    """The time after this one, which has come or is ahead of a clock that was set back.

    None for a schedule that cannot be read any more: its time zone may be gone.
    """
    try:
        return Recurrence(schedule.cron, schedule.timezone).after(max(time.time(), schedule.next_at or 0.0))
    except errors.InvalidRequest:
        return None
