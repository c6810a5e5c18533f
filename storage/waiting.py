"""Scheduled jobs: rows that wait for their time, or for other jobs, and that Redis does not know.

`begin` is part of accepting; `Waiting` is what the leading scheduler does with them: release, expire, fill, fail. Two
schedulers at once do each thing once: every change asks that the row is still scheduled. It must not know Redis.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Update, and_, func, literal_column, select, update

from inferq import errors
from inferq.job import RANK, Failure, Job, JobSpec, JobState
from inferq.lanes import Lane
from storage import dependents, endings
from storage.database import Database, exclusive
from storage.dependents import INPUTS
from storage.rows import WHOLE, end_values, job_of
from storage.tables import SCHEDULED, dependencies, jobs

EXPIRED = Failure(code="expired", message="the job had not started when its deadline passed", status=504)
"""As `queues/lua` says it of a job that waits in the queue."""

MOST_BYTES = 2**25
"""Of the bodies of jobs that are released together."""

_HELD = select(dependencies.c.job_id).where(dependencies.c.job_id == jobs.c.id)
_UNFILLED = _HELD.where(dependencies.c.needs == INPUTS)
_AWAITING = _HELD.where(dependencies.c.needs != INPUTS)


@dataclass(frozen=True, slots=True)
class Due:
    """So many jobs of one kind that wait for nothing but room."""

    model: str
    tenant: str
    lane: Lane
    count: int


def begin(connection: Connection, specs: Sequence[JobSpec], *, at_most: int | None = None) -> None:
    """New scheduled jobs of one tenant, whose rows are there, begin to wait.

    Raises QueueFull when the tenant then has more than `at_most` scheduled jobs, JobNotFound for a job in `depends_on`
    that is none of the tenant's, and InvalidRequest for one that cannot be waited for.
    """
    if at_most is not None:
        _refuse_full(connection, specs[0].tenant, at_most)
    failed = dependents.begin(connection, specs)
    if failed:
        endings.ended(connection, failed)


def _refuse_full(connection: Connection, tenant: str, at_most: int) -> None:
    exclusive(connection, f"scheduled:{tenant}")
    own: Select[Any] = select(literal_column("1").label("one")).select_from(jobs)
    some = own.where(SCHEDULED, jobs.c.tenant == tenant).limit(at_most + 1).subquery()
    count = connection.scalar(select(func.count()).select_from(some)) or 0
    if count > at_most:
        raise errors.QueueFull(
            f"This key has {at_most} scheduled jobs; that is the bound (queue.max_scheduled_jobs).",
            retry_after=30.0,
        )


def _due(now: float) -> ColumnElement[bool]:
    """Scheduled jobs whose time has come, and that wait for nothing else."""
    return and_(SCHEDULED, jobs.c.due_at <= now, ~_HELD.exists())


class Waiting:
    """Every method raises StoreUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, *, now: float) -> list[Due]:
        """What could be released, those first that have waited longest."""
        columns = (jobs.c.model, jobs.c.tenant, jobs.c.lane, func.count())
        found = select(*columns).where(_due(now)).group_by(*columns[:3]).order_by(func.min(jobs.c.due_at))

        def work(connection: Connection) -> list[Due]:
            rows = connection.execute(found)
            return [Due(model, tenant, Lane(lane), count) for model, tenant, lane, count in rows]

        return await self._database.read(work)

    async def release(
        self, *, now: float, limit: int, patience: float = 0.0, of: Due | None = None
    ) -> list[Job]:
        """Queue, in SQL, up to `limit` jobs that are due and wait for nothing else; they, with their bodies, of which
        there are not many more than `MOST_BYTES`.

        `patience`: seconds after which those are given up that have no `expires_at`; 0 for never. `of`: of this model,
        tenant and lane only.
        """
        due = select(jobs.c.id, func.length(jobs.c.body)).where(_due(now))
        if of is not None:
            due = due.where(
                jobs.c.model == of.model, jobs.c.tenant == of.tenant, jobs.c.lane == of.lane.value
            )
        due = due.order_by(jobs.c.due_at, jobs.c.id).limit(limit)
        queued: dict[str, Any] = {
            "state": JobState.QUEUED.value,
            "rank": RANK[JobState.QUEUED],
            "queued_at": now,
            "in_queue": False,
        }
        if patience:
            queued["expires_at"] = func.coalesce(jobs.c.expires_at, now + patience)
        release = update(jobs).where(jobs.c.rank == 0).values(queued).returning(*WHOLE)

        def work(connection: Connection) -> list[Job]:
            ids, total = [], 0
            for job_id, size in connection.execute(due):
                if total < MOST_BYTES:
                    ids.append(job_id)
                    total += size or 0
            found = [job_of(row) for row in connection.execute(release.where(jobs.c.id.in_(ids))).mappings()]
            return sorted(found, key=lambda job: (job.spec.due_at or 0.0, job.id))

        return await self._database.write(work)

    async def expire(self, *, now: float, limit: int) -> list[str]:
        """End up to `limit` scheduled jobs whose `expires_at` has passed; their ids."""
        late = select(jobs.c.id).where(SCHEDULED, jobs.c.expires_at <= now).limit(limit)
        statement = (
            update(jobs)
            .where(jobs.c.id.in_(late.scalar_subquery()), jobs.c.rank == 0)
            .values(**end_values(JobState.EXPIRED, EXPIRED))
            .returning(jobs.c.id)
        )

        def work(connection: Connection) -> list[str]:
            ids = sorted(connection.scalars(statement))
            endings.ended(connection, ids)
            return ids

        return await self._database.write(work)

    async def unfilled(
        self, *, now: float, limit: int, without: Collection[str] = (), tenants: Collection[str] = ()
    ) -> list[tuple[str, str]]:
        """(job, tenant) of due jobs that wait for nothing but their inputs; those `without`, and of these `tenants`,
        left out.
        """
        found = select(jobs.c.id, jobs.c.tenant).where(
            SCHEDULED,
            jobs.c.due_at <= now,
            _UNFILLED.exists(),
            ~_AWAITING.exists(),
            jobs.c.id.not_in(without),
            jobs.c.tenant.not_in(tenants),
        )
        statement = found.order_by(jobs.c.due_at, jobs.c.id).limit(limit)

        def work(connection: Connection) -> list[tuple[str, str]]:
            return [(job_id, tenant) for job_id, tenant in connection.execute(statement)]

        return await self._database.read(work)

    async def fill(self, job: Job, *, body: bytes, stream: bool, units: float) -> bool:
        """Give a scheduled job its request, whole; False when it is not as `job` says any more."""
        changed = _same(job).values(body=body, stream=stream, units=units)

        def work(connection: Connection) -> bool:
            if not connection.execute(changed).rowcount:
                return False
            dependents.forget(connection, job.id, inputs_only=True)
            return True

        return await self._database.write(work)

    async def fail(self, job: Job, failure: Failure) -> bool:
        """End a scheduled job; False when it is not as `job` says any more."""
        changed = _same(job).values(**end_values(JobState.FAILED, failure))

        def work(connection: Connection) -> bool:
            if not connection.execute(changed).rowcount:
                return False
            endings.ended(connection, [job.id])
            return True

        return await self._database.write(work)


def _same(job: Job) -> Update:
    return update(jobs).where(jobs.c.id == job.id, jobs.c.generation == job.generation, jobs.c.rank == 0)
