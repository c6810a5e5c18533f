"""`Intake`: how work enters and how people change it: submit, find, cancel, requeue. Used by the api and the watchers.

Durable jobs: a place in Redis, then the commit in SQL (which is what "accepted" means), then the ready set. What dies
between two steps is mended by the reconciler. Interactive jobs: one call to Redis.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from inferq import errors, failpoints
from inferq.config import Settings
from inferq.job import Failure, Job, JobSpec, JobState
from queues.queue import JobQueue, Standing
from queues.replies import LOST
from queues.signals import Signals
from storage import Storage
from storage.ledger import Page

_LIVE = ("scheduled", "queued", "running")
CANCELLED = Failure(code="cancelled", message="the job was cancelled", status=499)


@dataclass(frozen=True, slots=True)
class Accepted:
    """`queued` is False when only SQL holds the job because Redis is away; `eta` is in seconds."""

    position: int | None
    eta: float | None
    queued: bool = True


class Intake:
    def __init__(self, queue: JobQueue, storage: Storage, signals: Signals, settings: Settings):
        self._queue = queue
        self._ledger = storage.ledger
        self._signals = signals
        self._max_offline = settings.queue.max_offline_jobs

    async def submit(self, spec: JobSpec, *, reply_to: str | None = None, weight: float = 1.0) -> Accepted:
        """Accept a job. Submitting the same id again changes nothing.

        Raises QueueFull, QueueUnavailable (interactive only), StoreUnavailable (durable only).
        """
        if not spec.durable:
            standing = await self._queue.accept(spec, "direct", reply_to=reply_to, weight=weight)
            return self._announce(spec, standing)
        try:
            await self._queue.reserve(spec)
        except errors.QueueUnavailable:
            await self._ledger.accept(spec, bound=self._max_offline)
            return Accepted(None, None, queued=False)
        failpoints.reach("intake.reserved")
        await self._ledger.accept(spec)
        failpoints.reach("intake.committed")
        try:
            return self._announce(spec, await self._queue.accept(spec, "reserved", weight=weight))
        except errors.QueueUnavailable:
            return Accepted(None, None, queued=False)

    async def find(self, job_id: str) -> Job:
        """The job, from Redis, else from SQL. A durable job shows as finished only when SQL holds it.

        Raises JobNotFound, StoreUnavailable.
        """
        try:
            job = await self._queue.get(job_id)
        except errors.QueueUnavailable:
            job = None
        if job is None or job.terminal:
            row = await self._ledger.get(job_id)
            if row is not None and (job is None or row.terminal or row.generation > job.generation):
                return row
            if job is None:
                raise errors.JobNotFound(f"no job {job_id}")
            if job.spec.durable:
                return replace(
                    job, state=JobState.RUNNING, result=None, artifact=None, error=None, finished_at=None
                )
        if job.state is JobState.QUEUED:
            return await self._with_standing(job)
        return job

    async def list_jobs(self, *, state: JobState | None = None, **filters: Any) -> Page:
        """A page of `Ledger.list_jobs`, with the states that Redis knows better: SQL hears when a job is accepted and
        when it ends. A page of one state may be shorter than its limit.

        Raises InvalidRequest, StoreUnavailable, and QueueUnavailable when only running jobs are wanted.
        """
        if state is JobState.RUNNING:
            page = await self._ledger.list_jobs(
                state=JobState.QUEUED, ids=await self._queue.running(), **filters
            )
        else:
            page = await self._ledger.list_jobs(state=state, **filters)
        live = [job for job in page.jobs if not job.terminal]
        try:
            known = {job.id: job for job in await self._queue.with_runs(live)} if live else {}
        except errors.QueueUnavailable:
            if state is JobState.RUNNING:
                raise
            return page
        jobs = [known.get(job.id, job) for job in page.jobs]
        return replace(page, jobs=[job for job in jobs if state is None or job.state is state])

    async def cancel(self, job_id: str, failure: Failure = CANCELLED) -> Job:
        """Cancel, down to the engine. A finished job stays as it is. Raises JobNotFound, StoreUnavailable."""
        job = await self.find(job_id)
        if job.terminal:
            return job
        if job.spec.durable:
            job = await self._ledger.cancel(job_id) or job
            failpoints.reach("intake.cancelled")
        try:
            if await self._queue.cancel(job_id, failure, generation=job.generation) in _LIVE:
                self._signals.ended(job_id, "cancelled")
        except errors.QueueUnavailable:
            if not job.spec.durable:
                raise
        return await self.find(job_id)

    async def abandon(self, job_id: str) -> None:
        """The caller of an interactive job has gone: cancel it, in one call and without looking it up."""
        if await self._queue.cancel(job_id, CANCELLED) in _LIVE:
            self._signals.ended(job_id, "cancelled")

    async def requeue(self, job_id: str, *, edits: Mapping[str, Any] | None = None) -> Job:
        """Run a finished job again, with changes to body, model, lane or metadata. It is durable from then on.

        Raises JobNotFound, Conflict when it has not finished, StoreUnavailable.
        """
        if (await self.find(job_id)).state is JobState.SUCCEEDED and not edits:
            raise errors.Conflict("the job has succeeded; requeue it with a change, or submit it again")
        job = await self._ledger.requeue(job_id, **dict(edits or {}))
        failpoints.reach("intake.requeued")
        try:
            standing = await self._queue.accept(job.spec, "restore", generation=job.generation)
            self._announce(job.spec, standing, again=True)
        except errors.QueueUnavailable:
            return job
        return await self.find(job_id)

    async def file_lost(self, spec: JobSpec) -> None:
        """Record an interactive job that Redis forgot as failed: redis_lost."""
        await self._ledger.accept(spec, state=JobState.FAILED, error=LOST)

    def _announce(self, spec: JobSpec, standing: Standing | None, *, again: bool = False) -> Accepted:
        if standing is None:
            return Accepted(None, None)
        self._signals.sent(spec, again=again)
        if standing.bell_wanted:
            self._signals.ring(spec.model)
        return Accepted(standing.position, None)

    async def _with_standing(self, job: Job) -> Job:
        """A waiting job with its position, and an estimate when replicas of its model are ready to work."""
        standing = await self._queue.standing(job.id)
        if standing is None:
            return job
        ready = [r for r in await self._queue.replicas() if r.model == job.spec.model and r.state == "ready"]
        eta = standing.ahead / len(ready) if ready else None
        return replace(job, position=standing.position, eta=eta)
