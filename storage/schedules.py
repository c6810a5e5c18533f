"""Schedules: jobs that come again. It owns the table `schedules`; it knows neither cron nor how a job is checked."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select, update

from inferq import errors
from inferq.job import JobSpec, JobState
from storage import statements, waiting
from storage.database import Database, exclusive
from storage.rows import accepted_values, spec_values
from storage.tables import schedules

MOST = 1000
"""Schedules of one tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`request` is the job's envelope, JSON. `next_at` is None while it is paused; times are Unix seconds."""

    id: str
    name: str
    tenant: str
    cron: str
    timezone: str
    request: bytes
    enabled: bool = True
    created_at: float
    next_at: float | None
    last_at: float | None = None
    last_job: str | None = None
    last_error: str | None = None


class ScheduleStore:
    """Every method raises StoreUnavailable when the database is away. `which` is an id, or the name of a tenant's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, schedule: Schedule) -> None:
        """Raises Conflict when the tenant has one of this name, AtCapacity when it has too many."""
        own = schedules.c.tenant == schedule.tenant
        values = {column.name: getattr(schedule, column.name) for column in schedules.c}

        def work(connection: Connection) -> None:
            exclusive(connection, "schedules")
            if connection.scalar(select(schedules.c.id).where(own, schedules.c.name == schedule.name)):
                raise errors.Conflict(f"There is already a schedule named {schedule.name}.", param="name")
            if (connection.scalar(select(func.count()).where(own)) or 0) >= MOST:
                raise errors.AtCapacity(
                    f"This key has {MOST} schedules; that is the bound.", retry_after=60.0
                )
            connection.execute(insert(schedules).values(values))

        await self._database.write(work)

    async def list(self, *, tenant: str | None) -> "list[Schedule]":
        """By name; those of one tenant, or with None all."""
        statement = select(schedules).order_by(schedules.c.name, schedules.c.tenant)
        if tenant is not None:
            statement = statement.where(schedules.c.tenant == tenant)

        def work(connection: Connection) -> "list[Schedule]":
            return [_schedule_of(row) for row in connection.execute(statement).mappings()]

        return await self._database.read(work)

    async def find(self, which: str, *, tenant: str) -> Schedule | None:
        """By its id, whosever it is, or by its name among this tenant's."""
        own = (schedules.c.tenant == tenant) & (schedules.c.name == which)
        statement = select(schedules).where(or_(schedules.c.id == which, own))

        def work(connection: Connection) -> Schedule | None:
            row = connection.execute(statement).mappings().first()
            return None if row is None else _schedule_of(row)

        return await self._database.read(work)

    async def change(self, schedule_id: str, changes: Mapping[str, Any]) -> Schedule | None:
        """The schedule with these columns changed, or None when it is gone."""
        changed = update(schedules).where(schedules.c.id == schedule_id).values(**changes)

        def work(connection: Connection) -> Schedule | None:
            row = connection.execute(changed.returning(*schedules.c)).mappings().first()
            return None if row is None else _schedule_of(row)

        return await self._database.write(work)

    async def delete(self, schedule_id: str) -> bool:
        """Its jobs stay."""
        gone = delete(schedules).where(schedules.c.id == schedule_id)
        return await self._database.write(lambda connection: connection.execute(gone).rowcount > 0)

    async def due(
        self, *, now: float, limit: int, without: Collection[str] = (), tenants: Collection[str] = ()
    ) -> Sequence[Schedule]:
        """Schedules whose time has come; those `without`, and of these `tenants`, left out."""
        statement = (
            select(schedules)
            .where(
                schedules.c.next_at <= now,
                schedules.c.id.not_in(without),
                schedules.c.tenant.not_in(tenants),
            )
            .order_by(schedules.c.next_at)
            .limit(limit)
        )

        def work(connection: Connection) -> Sequence[Schedule]:
            return [_schedule_of(row) for row in connection.execute(statement).mappings()]

        return await self._database.read(work)

    async def fire(
        self, schedule: Schedule, spec: JobSpec | None, *, next_at: float | None, error: str | None, most: int
    ) -> bool:
        """Make the due job and go on to the next time, in one transaction. False when somebody else did, or it was
        changed meanwhile; then nothing is written. Without `spec` this run is left out, for the reason `error`.

        Raises QueueFull when its tenant has more than `most` scheduled jobs.
        """
        changes: dict[str, Any] = {"next_at": next_at, "last_at": time.time(), "last_error": error}
        if spec is not None:
            changes["last_job"] = spec.id
        moved = update(schedules).where(
            schedules.c.id == schedule.id,
            schedules.c.next_at == schedule.next_at,
            schedules.c.request == schedule.request,
        )

        def work(connection: Connection) -> bool:
            if not connection.execute(moved.values(**changes)).rowcount:
                return False
            if spec is not None:
                row = {
                    **spec_values(spec),
                    **accepted_values(spec, JobState.SCHEDULED, None),
                    "in_queue": True,
                }
                connection.execute(statements.INSERT_JOB, row)
                waiting.begin(connection, [spec], at_most=most)
            return True

        return await self._database.write(work)


def _schedule_of(row: RowMapping) -> Schedule:
    return Schedule(**row)
