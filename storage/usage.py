"""What tenants have used: jobs and device seconds by day and model. It owns the table `usage`.

It is written in the transaction in which a job's row ends, so each run is counted once. A day is one of UTC.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection, func, select, text

from storage.database import Database
from storage.tables import usage

_ADD = text(
    "INSERT INTO usage (tenant, day, model, jobs, device_seconds) VALUES (:tenant, :day, :model, :jobs, :seconds) "
    "ON CONFLICT (tenant, day, model) DO UPDATE SET "
    "jobs = usage.jobs + excluded.jobs, device_seconds = usage.device_seconds + excluded.device_seconds"
)


def add(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Count these rows of `jobs`, which end now."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        when = datetime.fromtimestamp(row["finished_at"] or row["created_at"], UTC)
        total = sums.setdefault((row["tenant"], when.date().isoformat(), row["model"]), [0, 0.0])
        total[0] += 1
        total[1] += row["device_seconds"] or 0.0
    # In one order, so that recorders that overlap lock rows in the same one.
    values = [
        {"tenant": tenant, "day": day, "model": model, "jobs": count, "seconds": seconds}
        for (tenant, day, model), (count, seconds) in sorted(sums.items())
    ]
    if values:
        connection.execute(_ADD, values)


class UsageStore:
    """Every method raises StoreUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def seconds_since(self, first: date) -> dict[tuple[str, date], float]:
        """Device seconds by tenant and day, from that day on."""
        columns = (usage.c.tenant, usage.c.day)
        some = select(*columns, func.sum(usage.c.device_seconds)).where(usage.c.day >= first.isoformat())

        def work(connection: Connection) -> dict[tuple[str, date], float]:
            rows = connection.execute(some.group_by(*columns)).all()
            return {(tenant, date.fromisoformat(day)): float(seconds) for tenant, day, seconds in rows}

        return await self._database.read(work)
