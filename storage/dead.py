"""Dead letters: the jobs in state `failed`. Lists them, groups them by cause, requeues and purges them.

They are rows of the ledger's table, which nothing removes but `purge`. It must not know Redis, nor decide who may do
what. Times are Unix seconds. Every method raises StoreUnavailable when the database is away.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, not_, select, tuple_

from inferq import errors
from inferq.causes import pattern_of
from inferq.job import Job, is_job_id
from storage import dependents, statements
from storage.again import run_again
from storage.database import Database
from storage.rows import BRIEF, WHOLE, job_of
from storage.tables import DEAD, jobs

LOOKED_AT = 10_000
"""The newest dead letters, among which causes are counted."""
FILES = "file:"
"""What the source of a job from a watched directory starts with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Which dead letters; None for any. They failed at `since` or later, and before `until`."""

    model: str | None = None
    lane: str | None = None
    tenant: str | None = None
    source: str | None = None
    code: str | None = None
    since: float | None = None
    until: float | None = None
    ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a list of dead letters. `until` ends a run that was begun before: what fails again is not in it."""

    failed_at: float
    job_id: str
    until: float = math.inf

    def written(self) -> str:
        """The opaque text that stands for it."""
        text = f"{self.failed_at!r} {self.job_id} {self.until!r}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, cursor: str) -> "Mark":
        """Raises InvalidRequest for a text that `written` did not make."""
        try:
            text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
            failed_at, job_id, until = text.split(" ")
            mark = cls(float(failed_at), job_id, float(until))
        except (binascii.Error, ValueError):
            mark = cls(math.nan, "")
        if not math.isfinite(mark.failed_at) or math.isnan(mark.until) or not is_job_id(mark.job_id):
            raise errors.InvalidRequest("cursor is not one that this server gave", param="cursor")
        return mark


@dataclass(frozen=True, slots=True)
class Revival:
    """What to requeue: the job as it was looked at, which must still be so, and what changes (columns of a spec)."""

    job: Job
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cause:
    """Dead letters of one model with one error code and one pattern of message, and the newest of them."""

    model: str
    code: str | None
    pattern: str
    count: int
    first_at: float
    last_at: float
    example: str


@dataclass(frozen=True, slots=True)
class Causes:
    """`complete` is False when there are more dead letters than were looked at."""

    causes: list[Cause]
    looked_at: int
    complete: bool


class DeadLetters:
    """The failed jobs of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, criteria: Criteria, after: Mark | None = None, *, limit: int = 50) -> list[Job]:
        """At most `limit` of them behind `after`, the newest failure first, without their bodies."""
        statement = _chosen(BRIEF, criteria).order_by(jobs.c.finished_at.desc(), jobs.c.id.desc())
        if after is not None:
            statement = statement.where(_place() < (after.failed_at, after.job_id))
        return await self._jobs(statement.limit(limit))

    async def oldest(self, criteria: Criteria, after: Mark | None = None, *, limit: int) -> list[Job]:
        """At most `limit` of them behind `after`, the oldest failure first, with their bodies."""
        statement = _chosen(WHOLE, criteria).order_by(jobs.c.finished_at, jobs.c.id)
        if after is not None:
            statement = statement.where(_place() > (after.failed_at, after.job_id))
        return await self._jobs(statement.limit(limit))

    async def count(self, criteria: Criteria, *, at_most: int) -> int:
        """How many could be purged; counting ends at `at_most`."""
        some = _chosen((jobs.c.id,), criteria).where(_delivered()).limit(at_most).subquery()
        statement = select(func.count()).select_from(some)
        return await self._database.read(lambda connection: int(connection.scalar(statement) or 0))

    async def causes(self, criteria: Criteria, *, limit: int = 100) -> Causes:
        """The most frequent causes among the newest LOOKED_AT dead letters."""
        columns = (jobs.c.model, jobs.c.error_code, jobs.c.error_message, jobs.c.finished_at, jobs.c.id)
        newest = _chosen(columns, criteria).order_by(jobs.c.finished_at.desc(), jobs.c.id.desc())
        some = newest.limit(LOOKED_AT + 1).subquery()
        same = (some.c.model, some.c.error_code, some.c.error_message)
        # Of a job's newest failure the id is not the largest one, but it is one of this cause.
        counted = (
            func.count(),
            func.min(some.c.finished_at),
            func.max(some.c.finished_at),
            func.max(some.c.id),
        )
        statement = select(*same, *counted).group_by(*same)
        rows = await self._database.read(lambda connection: connection.execute(statement).all())
        looked_at = sum(row[3] for row in rows)
        return Causes(_folded(rows)[:limit], min(looked_at, LOOKED_AT), looked_at <= LOOKED_AT)

    async def requeue(self, revivals: Sequence[Revival], *, expires_at: float | None = None) -> list[Job]:
        """Begin the next generation of these jobs, in one transaction; those that were still as they were looked at.

        They become durable.
        """

        def work(connection: Connection) -> list[Job]:
            # By id, so that two that requeue the same jobs lock rows in the same order.
            ordered = sorted(revivals, key=lambda revival: revival.job.id)
            return [
                job for revival in ordered if (job := _revive(connection, revival, expires_at)) is not None
            ]

        return await self._database.write(work)

    async def purge(self, criteria: Criteria, *, limit: int) -> list[str]:
        """Delete at most `limit` of them, the oldest first, and return their ids. Artifacts stay: others may share
        them. A job file's error that was not delivered yet stays too.
        """
        oldest = _chosen((jobs.c.id,), criteria).where(_delivered()).order_by(jobs.c.finished_at, jobs.c.id)
        # Said twice: PostgreSQL looks at a row again that changed while this waited for it.
        gone = delete(jobs).where(jobs.c.id.in_(oldest.limit(limit)), DEAD).returning(jobs.c.id)

        def work(connection: Connection) -> list[str]:
            ids = list(connection.scalars(gone))
            for job_id in ids:
                dependents.forget(connection, job_id)
            return ids

        return await self._database.write(work)

    async def _jobs(self, statement: Select[Any]) -> list[Job]:
        def work(connection: Connection) -> list[Job]:
            return [job_of(row) for row in connection.execute(statement).mappings()]

        return await self._database.read(work)


def mark_of(job: Job, until: float = math.inf) -> Mark:
    """The place of a dead letter."""
    return Mark(job.finished_at or 0.0, job.id, until)


def _chosen(columns: Sequence[ColumnElement[Any]], criteria: Criteria) -> Select[Any]:
    statement = select(*columns).where(DEAD)
    equal = {
        jobs.c.model: criteria.model,
        jobs.c.lane: criteria.lane,
        jobs.c.tenant: criteria.tenant,
        jobs.c.source: criteria.source,
        jobs.c.error_code: criteria.code,
    }
    for column, value in equal.items():
        if value is not None:
            statement = statement.where(column == value)
    if criteria.since is not None:
        statement = statement.where(jobs.c.finished_at >= criteria.since)
    if criteria.until is not None:
        statement = statement.where(jobs.c.finished_at < criteria.until)
    if criteria.ids is not None:
        statement = statement.where(jobs.c.id.in_(criteria.ids))
    return statement


def _place() -> Any:
    return tuple_(jobs.c.finished_at, jobs.c.id)


def _delivered() -> ColumnElement[bool]:
    """No watched directory waits for the job's end any more."""
    return not_(and_(jobs.c.durable, not_(jobs.c.delivered), statements.starts_with(FILES)))


def _revive(connection: Connection, revival: Revival, expires_at: float | None) -> Job | None:
    job = revival.job
    unchanged = and_(jobs.c.id == job.id, jobs.c.generation == job.generation, DEAD)
    if connection.scalar(select(jobs.c.id).where(unchanged).with_for_update()) is None:
        return None
    return run_again(connection, job, revival.changes, expires_at=expires_at)


def _folded(rows: Sequence[Any]) -> list[Cause]:
    """Rows of equal messages as causes, the most frequent first."""
    found: dict[tuple[str, str | None, str], Cause] = {}
    for model, code, message, count, first, last, example in rows:
        pattern = pattern_of(message or "")
        known = found.get((model, code, pattern))
        if known is not None:
            example = known.example if known.last_at >= last else example  # noqa: PLW2901
            count += known.count  # noqa: PLW2901
            first, last = min(first, known.first_at), max(last, known.last_at)  # noqa: PLW2901
        found[model, code, pattern] = Cause(model, code, pattern, count, first, last, example)
    return sorted(found.values(), key=lambda cause: (-cause.count, -cause.last_at))
