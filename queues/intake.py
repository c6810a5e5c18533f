"""`Intake`: how work enters and how people change it: submit, find, cancel, requeue. Used by the api and the watchers.

Durable jobs: a place in Redis, then the commit in SQL (which is what "accepted" means), then the ready set. What dies
between two steps is mended by the reconciler. Interactive jobs: one call to Redis.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inferq import errors, failpoints
from inferq.config import Settings
from inferq.fallback import Fallbacks
from inferq.hooks import Hooks
from inferq.job import Failure, Job, JobSpec, JobState
from inferq.lanes import Lane
from queues.bounds import NO_RATES, Rates
from queues.capacity import Capacities
from queues.queue import JobQueue, Standing
from queues.replies import LOST
from queues.signals import Signals
from storage import Storage
from storage.groups import Group
from storage.idempotency import Claim
from storage.ledger import Page

_LIVE = ("scheduled", "queued", "running")
CANCELLED = Failure(code="cancelled", message="the job was cancelled", status=499)


@dataclass(frozen=True, slots=True)
class Accepted:
    """`queued` is False when only SQL holds the job, because Redis is away or it is scheduled; `eta` is in seconds.
    `created` is False when the job was there before; `owner` is the job that the call's key stands for, when that is
    another one.
    """

    position: int | None
    eta: float | None
    queued: bool = True
    created: bool = True
    owner: str | None = None
    scheduled: bool = False
    rates: Rates = NO_RATES


class Intake:
    def __init__(
        self,
        queue: JobQueue,
        storage: Storage,
        signals: Signals,
        settings: Settings,
        hooks: Hooks | None = None,
    ):
        self._hooks = hooks
        self._queue = queue
        self._ledger = storage.ledger
        self._claims = storage.claims
        self._groups = storage.groups
        self._signals = signals
        self._bounds = settings.queue
        self._capacities = Capacities(queue, settings)
        self._fallbacks = Fallbacks(settings, storage.media.take_all)

    async def submit(
        self,
        spec: JobSpec,
        *,
        reply_to: str | None = None,
        weight: float = 0.0,
        claim: Claim | None = None,
    ) -> Accepted:
        """Accept a job. Submitting the same id again changes nothing, nor does a durable job whose `claim` another
        call was first to make: `owner` names that call's job. `weight`: as for `JobQueue.accept`.

        An interactive job for a model whose every replica rests, since its engines keep failing, goes to the next one
        of its chain. Raises QueueFull, QueueUnavailable and, where there is none, EngineUnavailable (interactive only),
        StoreUnavailable and IdempotencyMismatch (durable only), and for `depends_on` JobNotFound and InvalidRequest.
        """
        accepted = await self._submit(spec, reply_to=reply_to, weight=weight, claim=claim)
        if self._hooks and accepted.created:
            self._hooks.after_accept(spec)
        return accepted

    async def _submit(
        self, spec: JobSpec, *, reply_to: str | None, weight: float, claim: Claim | None
    ) -> Accepted:
        if spec.waits:
            await self._charge([spec])
            most = self._bounds.max_scheduled_jobs
            made = await self._ledger.accept(spec, state=JobState.SCHEDULED, most_scheduled=most, claim=claim)
            owner = None if made else await self._owner(spec, claim)
            return Accepted(None, None, queued=False, scheduled=True, created=made, owner=owner)
        if not spec.durable:
            return await self._enter(spec, reply_to=reply_to, weight=weight)
        capacity = await self._capacities.of(spec.model)
        bound, reserved, rates = None, True, NO_RATES
        try:
            rates = await self._queue.reserve(spec)
        except errors.QueueUnavailable:
            bound, reserved = self._bounds.max_offline_jobs, False
        if reserved:
            failpoints.reach("intake.reserved")
        try:
            created, owner = await self._commit(spec, bound, claim)
        except errors.InferqError:
            await self._give_up(spec, reserved)
            raise
        if owner:
            await self._give_up(spec, reserved)
            return Accepted(None, None, created=False, owner=owner)
        if not reserved:
            return Accepted(None, None, queued=False, created=created)
        try:
            standing = await self._queue.accept(spec, "reserved", weight=weight, capacity=capacity)
            return replace(self._announce(spec, standing), rates=rates)
        except errors.QueueUnavailable:
            return Accepted(None, None, queued=False, created=created, rates=rates)

    async def _commit(self, spec: JobSpec, bound: int | None, claim: Claim | None) -> tuple[bool, str | None]:
        """Whether SQL took the job, and, where it did not, the one that another call has made under its key."""
        created = await self._ledger.accept(spec, bound=bound, claim=claim)
        failpoints.reach("intake.committed")
        return created, None if created else await self._owner(spec, claim)

    async def _give_up(self, spec: JobSpec, reserved: bool) -> None:
        """Nothing comes of a reserved place: it is not kept from others until it lapses."""
        if reserved:
            with contextlib.suppress(errors.QueueUnavailable):
                await self._queue.release(spec)

    async def _enter(self, spec: JobSpec, *, reply_to: str | None, weight: float) -> Accepted:
        """An interactive job enters the queue of its model, or of one behind it."""
        routed = await self._routed(spec)
        instead_of = spec.model if routed.model != spec.model else None
        standing = await self._queue.accept(
            routed, "direct", reply_to=reply_to, weight=weight, instead_of=instead_of
        )
        return self._announce(routed, standing)

    async def _routed(self, spec: JobSpec) -> JobSpec:
        """The job for the first model of its chain that takes jobs; almost always as it is."""
        rest = await self._capacities.rests(spec.model)
        left, model = rest, spec.model
        while left is not None:
            other = await self._fallbacks.reroute(spec, model)
            if other is None:
                raise errors.EngineUnavailable(
                    f"The engines of {spec.model!r} keep failing; the next try is in {rest:.0f} s.",
                    retry_after=rest,
                )
            model, left = other.model, await self._capacities.rests(other.model)
            if left is None:
                return replace(spec, model=model, body=other.body, units=other.units)
        return spec

    async def _owner(self, spec: JobSpec, claim: Claim | None) -> str | None:
        """The job that another call has made under the same key."""
        held = await self._claims.find(claim) if claim is not None else None
        return held.job_id if held is not None and held.job_id != spec.id else None

    async def submit_group(
        self, group: Group, specs: Sequence[JobSpec], *, claim: Claim | None = None
    ) -> str:
        """Accept a group of jobs, all or none; they are scheduled first. Its id, or that of the group for which the
        key of `claim` stands. Raises as `submit`.
        """
        await self._charge(specs)
        most = self._bounds.max_scheduled_jobs
        owner = await self._groups.accept(group, specs, most_scheduled=most, claim=claim)
        if self._hooks and owner == group.id:
            for spec in specs:
                self._hooks.after_accept(spec)
        return owner

    async def _charge(self, specs: Sequence[JobSpec]) -> None:
        # Without Redis nobody counts; what SQL holds is bounded.
        with contextlib.suppress(errors.QueueUnavailable):
            await self._queue.charge(specs)

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
            return job  # what SQL holds: a Redis that can be read only would still say that it runs
        return await self.find(job_id)

    async def cancel_group(self, group_id: str) -> None:
        """Cancel all jobs of a group that have not ended. Raises StoreUnavailable.

        What Redis does not hear of is taken out of it by the reconciler.
        """
        with contextlib.suppress(errors.QueueUnavailable):
            for job_id, generation in await self._groups.cancel(group_id):
                if await self._queue.cancel(job_id, CANCELLED, generation=generation) in _LIVE:
                    self._signals.ended(job_id, "cancelled")

    async def reprioritise(self, job_id: str, lane: Lane) -> Job:
        """Give a waiting job another lane. Raises JobNotFound, Conflict when it does not wait, StoreUnavailable,
        QueueUnavailable.
        """
        job = await self.find(job_id)
        (held,) = await self._queue.generations([job_id])
        only_sql = held is None or held[1] < job.generation
        # The order lives in Redis; a death before SQL hears of it costs the new lane only if Redis is lost as well.
        state = job.state if only_sql else await self._queue.reorder(job_id, lane, generation=job.generation)
        if state not in (JobState.QUEUED, JobState.SCHEDULED):
            raise errors.Conflict(f"job {job_id} is {job.state if job.terminal else state} and waits no more")
        if job.spec.durable:
            await self._ledger.set_lane(job_id, lane)
        if only_sql:  # it may have come to Redis meanwhile, from the row as it was
            await self._queue.reorder(job_id, lane, generation=job.generation)
        return await self.find(job_id)

    async def abandon(self, job_id: str) -> None:
        """The caller of an interactive job has gone: cancel it, in one call and without looking it up."""
        if await self._queue.cancel(job_id, CANCELLED) in _LIVE:
            self._signals.ended(job_id, "cancelled")

    async def requeue(
        self, job_id: str, *, edits: Mapping[str, Any] | None = None, claim: Claim | None = None
    ) -> Job:
        """Run a finished job again, with changes to body, model, lane or metadata. It is durable from then on. The
        bounds of its tenant hold as for a new job; when one is reached, the job stays as it is.

        Raises JobNotFound, Conflict when it has not finished, QueueFull, RateLimited, BudgetSpent, StoreUnavailable,
        IdempotencyMismatch.
        """
        ended = await self.find(job_id)
        if ended.state is JobState.SUCCEEDED and not edits:
            raise errors.Conflict("the job has succeeded; requeue it with a change, or submit it again")
        changes = {name: value for name, value in (edits or {}).items() if value is not None}
        spec, expiry = replace(ended.spec, **changes), self._bounds.expiry(time.time())
        reserved = ended.terminal and await self._reserve(spec)
        try:
            job = await self._ledger.requeue(job_id, claim=claim, expires_at=expiry, **changes)
        except errors.InferqError:
            await self._give_up(spec, reserved)
            raise
        if job.state is not JobState.QUEUED:
            await self._give_up(spec, reserved)
            return job
        try:
            standing = await self._queue.accept(job.spec, "reserved", generation=job.generation)
            self._announce(job.spec, standing, again=True)
        except errors.QueueUnavailable:
            return job
        return await self.find(job_id)

    async def _reserve(self, spec: JobSpec) -> bool:
        """Keep a place for a job; False without Redis, where nobody counts. Raises what a bound does."""
        try:
            await self._queue.reserve(spec)
        except errors.QueueUnavailable:
            return False
        return True

    async def file_lost(self, spec: JobSpec) -> None:
        """Record an interactive job that Redis forgot as failed: redis_lost."""
        await self._ledger.accept(spec, state=JobState.FAILED, error=LOST)

    def _announce(self, spec: JobSpec, standing: Standing | None, *, again: bool = False) -> Accepted:
        if standing is None:
            return Accepted(None, None, created=False)
        self._signals.sent(spec, again=again)
        if standing.bell_wanted:
            self._signals.ring(spec.model)
        return Accepted(standing.position, standing.eta, rates=standing.rates)

    async def _with_standing(self, job: Job) -> Job:
        """A waiting job with its position, and an estimate when its model is served."""
        capacity = await self._capacities.of(job.served_by or job.spec.model)
        standing = await self._queue.standing(job.id, capacity)
        return replace(job, position=standing.position, eta=standing.eta) if standing else job
