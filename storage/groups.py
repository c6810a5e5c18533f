"""Groups: jobs that are accepted together, all or none, and looked at together.

It owns the table `groups`; that a group is finished is noted in `endings`. It must not know Redis, so to it a running
job is a queued one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from inferq.job import Failure, JobSpec, JobState
from storage import endings, statements, waiting
from storage.database import Database
from storage.dependents import FINAL, pages
from storage.idempotency import Claim, take
from storage.rows import accepted_values, end_values, spec_values
from storage.tables import groups, jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """`counts` are its jobs by state; `finished_at` is when the last of them ended for the first time."""

    id: str
    tenant: str
    total: int
    created_at: float
    finished_at: float | None = None
    webhook: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[JobState, int] = field(default_factory=dict)


class GroupStore:
    """Every method raises StoreUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def accept(
        self, group: Group, specs: Sequence[JobSpec], *, most_scheduled: int, claim: Claim | None = None
    ) -> str:
        """Commit a group and its jobs, which are scheduled, and due at once where they wait for nothing. The group's
        id, or that of the one for which the key of `claim` stands; then nothing is written.

        Raises IdempotencyMismatch, and what `waiting.begin` raises; then nothing is written either.
        """
        rows = []
        for spec in specs:
            asked = spec if spec.waits else replace(spec, due_at=group.created_at)
            rows.append(
                {**spec_values(asked), **accepted_values(asked, JobState.SCHEDULED, None), "in_queue": True}
            )

        def work(connection: Connection) -> str:
            if claim is not None and (owner := take(connection, claim)) != group.id:
                return owner
            connection.execute(insert(groups).values(_row_of(group)))
            connection.execute(statements.INSERT_JOB, rows)
            waiting.begin(connection, specs, at_most=most_scheduled)
            return group.id

        return await self._database.write(work)

    async def get(self, group_id: str) -> Group | None:
        statement = select(groups).where(groups.c.id == group_id)

        def work(connection: Connection) -> Group | None:
            row = connection.execute(statement).mappings().first()
            return None if row is None else _with_counts(connection, [_group_of(row)])[0]

        return await self._database.read(work)

    async def list(self, *, tenant: str | None, cursor: str | None = None, limit: int) -> "list[Group]":
        """Groups newest first, one more than `limit` where there are more. Raises InvalidRequest for a bad cursor."""
        statement = select(groups).order_by(groups.c.id.desc()).limit(limit + 1)
        if tenant is not None:
            statement = statement.where(groups.c.tenant == tenant)
        if cursor is not None:
            statement = statement.where(groups.c.id < statements.read_cursor(cursor))

        def work(connection: Connection) -> "list[Group]":
            return _with_counts(
                connection, [_group_of(row) for row in connection.execute(statement).mappings()]
            )

        return await self._database.read(work)

    async def cancel(self, group_id: str, failure: Failure | None = None) -> Sequence[tuple[str, int]]:
        """Cancel all jobs of a group that have not ended; they, with their generations."""
        statement = (
            update(jobs)
            .where(jobs.c.group_id == group_id, jobs.c.rank < FINAL)
            .values(**end_values(JobState.CANCELLED, failure), progress=None)
            .returning(jobs.c.id, jobs.c.generation)
        )

        def work(connection: Connection) -> Sequence[tuple[str, int]]:
            found = sorted((job_id, generation) for job_id, generation in connection.execute(statement))
            endings.ended(connection, [job_id for job_id, _ in found])
            return found

        return await self._database.write(work)

    async def unfinished_among(self, group_id: str, ids: Sequence[str]) -> int:
        """How many of these jobs are the group's and have not ended."""

        def work(connection: Connection) -> int:
            own = select(func.count()).where(jobs.c.group_id == group_id, jobs.c.rank < FINAL)
            return sum(connection.scalar(own.where(jobs.c.id.in_(some))) or 0 for some in pages(ids))

        return await self._database.read(work)


def _with_counts(connection: Connection, found: list[Group]) -> list[Group]:
    counted: dict[str, dict[JobState, int]] = {group.id: {} for group in found}
    states = select(jobs.c.group_id, jobs.c.state, func.count()).where(jobs.c.group_id.in_(counted))
    for group_id, state, count in connection.execute(states.group_by(jobs.c.group_id, jobs.c.state)):
        counted[group_id][JobState(state)] = count
    return [replace(group, counts=counted[group.id]) for group in found]


def _row_of(group: Group) -> dict[str, Any]:
    return {column.name: getattr(group, column.name) for column in groups.c}


def _group_of(row: RowMapping) -> Group:
    return Group(**row)
