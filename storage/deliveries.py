"""Webhook messages that wait to be sent, and what became of the others.

It owns the table `deliveries`. Rows are made in the transaction in which what they tell of happens, so each is told at
least once. It sends nothing.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    select,
    update,
)

from inferq import errors, webhooks
from inferq.job import Job, new_job_id
from storage.database import Database, exclusive
from storage.dependents import pages
from storage.rows import BRIEF, job_of
from storage.statements import make_cursor, read_cursor
from storage.tables import deliveries, groups, jobs
from storage.texts import clean


class DeliveryState(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message; times are Unix seconds. `id` is the same at each try, `subject` the job or group it is about.
    `attempts` are those that have begun, `next_at` is None once there will be no further one.
    """

    id: str
    url: str
    host: str
    event: str
    subject: str
    tenant: str
    created_at: float
    attempts: int
    next_at: float | None = None
    delivered_at: float | None = None
    last_error: str | None = None
    payload: bytes = b""

    @property
    def state(self) -> DeliveryState:
        if self.delivered_at is not None:
            return DeliveryState.DELIVERED
        return DeliveryState.GIVEN_UP if self.next_at is None else DeliveryState.WAITING


@dataclass(frozen=True, slots=True)
class Page:
    deliveries: list[Delivery]
    next_cursor: str | None


_STATES: dict[DeliveryState, ColumnElement[bool]] = {
    DeliveryState.WAITING: deliveries.c.next_at.is_not(None),
    DeliveryState.DELIVERED: deliveries.c.delivered_at.is_not(None),
    DeliveryState.GIVEN_UP: and_(deliveries.c.next_at.is_(None), deliveries.c.delivered_at.is_(None)),
}
_BRIEF = [column for column in deliveries.c if column.name != "payload"]
_TOLD = [
    *(column for column in BRIEF if column.name != "result"),
    case((func.length(jobs.c.result) <= webhooks.INLINE_RESULT, jobs.c.result)).label("result"),
]
"""What a message tells of a job: not its body, and its result if it is small."""


def tell(connection: Connection, job_ids: Sequence[str], group_ids: Sequence[str]) -> None:
    """These jobs and groups have ended in this transaction: make the messages about those that somebody wants."""
    rows: list[dict[str, Any]] = []
    for some in pages(job_ids):
        wanted = select(*_TOLD).where(jobs.c.id.in_(some), jobs.c.webhook.is_not(None))
        ended = connection.execute(wanted.order_by(jobs.c.id)).mappings()
        rows += [_job_row(job_of(row)) for row in ended]
    for some in pages(group_ids):
        finished = select(groups).where(groups.c.id.in_(some), groups.c.webhook.is_not(None))
        rows += [_group_row(connection, row) for row in connection.execute(finished).mappings()]
    if rows:
        # Listed in this order: ids of one millisecond have none.
        ids = sorted(new_job_id() for _ in rows)
        named = [{**row, "id": delivery_id} for row, delivery_id in zip(rows, ids, strict=True)]
        connection.execute(insert(deliveries), named)


def _job_row(job: Job) -> dict[str, Any]:
    spec = job.spec
    return _row(
        spec.webhook or "", webhooks.event_of(job.state), job.id, spec.tenant, webhooks.job_message(job)
    )


def _group_row(connection: Connection, row: RowMapping) -> dict[str, Any]:
    counted = select(jobs.c.state, func.count()).where(jobs.c.group_id == row["id"]).group_by(jobs.c.state)
    data = {
        "id": row["id"],
        "object": "group",
        "tenant": row["tenant"],
        "total": row["total"],
        "counts": dict(connection.execute(counted).tuples().all()),
        "metadata": row["metadata"],
        "created_at": row["created_at"],
        "finished_at": row["finished_at"],
        "links": {"self": f"/v1/groups/{row['id']}", "jobs": f"/v1/groups/{row['id']}/jobs"},
    }
    body = webhooks.message("group.finished", row["finished_at"], data)
    return _row(row["webhook"], "group.finished", row["id"], row["tenant"], body)


def _row(url: str, event: str, subject: str, tenant: str, payload: bytes) -> dict[str, Any]:
    now = time.time()
    return {
        "id": new_job_id(),
        "url": url,
        "host": webhooks.host_of(url),
        "event": event,
        "subject": subject,
        "tenant": tenant,
        "payload": payload,
        "created_at": now,
        "attempts": 0,
        "next_at": now,
    }


class Deliveries:
    """The messages in one database. Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, url: str, event: str, subject: str, tenant: str, payload: bytes, *, at_most: int | None = None
    ) -> Delivery:
        """A message of its own, due now. Raises AtCapacity when `at_most` of the tenant about the same wait already."""
        row = _row(url, event, subject, clean(tenant), payload)
        waiting = select(func.count()).where(
            deliveries.c.subject == subject,
            deliveries.c.tenant == row["tenant"],
            deliveries.c.next_at.is_not(None),
        )

        def work(connection: Connection) -> None:
            if at_most is not None:
                exclusive(connection, f"deliveries:{tenant}")
                if (connection.scalar(waiting) or 0) >= at_most:
                    raise errors.AtCapacity(
                        f"{at_most} messages like this one wait to be sent; that is the bound.",
                        retry_after=30.0,
                    )
            connection.execute(insert(deliveries), row)

        await self._database.write(work)
        return Delivery(**row)

    async def due(
        self, limit: int, *, hosts: Collection[str] = (), tenants: Collection[str] = ()
    ) -> list[Delivery]:
        """Messages to be sent now, the longest due first, without their payloads; those of these `hosts` and `tenants`
        left out.
        """
        waiting = select(*_BRIEF).where(
            deliveries.c.next_at <= time.time(),
            deliveries.c.host.not_in(hosts),
            deliveries.c.tenant.not_in(tenants),
        )
        return await self._rows(waiting.order_by(deliveries.c.next_at).limit(limit))

    async def begin(self, delivery: Delivery, seconds: float) -> Delivery | None:
        """Begin a try; None when somebody else has. If nothing is said of it, the next one is due in `seconds`."""
        mine = and_(deliveries.c.id == delivery.id, deliveries.c.next_at == delivery.next_at)
        taken = (
            update(deliveries)
            .where(mine)
            .values(next_at=time.time() + seconds, attempts=deliveries.c.attempts + 1)
        )

        def work(connection: Connection) -> Delivery | None:
            row = connection.execute(taken.returning(*deliveries.c)).mappings().first()
            return None if row is None else Delivery(**row)

        return await self._database.write(work)

    async def arrived(self, delivery: Delivery) -> None:
        await self._end(delivery, next_at=None, delivered_at=time.time(), last_error=None)

    async def failed(self, delivery: Delivery, why: str, next_at: float | None) -> None:
        """A try came to nothing; `next_at` is None when it was the last one."""
        await self._end(delivery, next_at=next_at, last_error=clean(why)[:500])

    async def _end(self, delivery: Delivery, **values: Any) -> None:
        # Another try that was begun meanwhile says for itself how it ended.
        mine = and_(deliveries.c.id == delivery.id, deliveries.c.attempts == delivery.attempts)
        statement = update(deliveries).where(mine).values(**values)
        await self._database.write(lambda connection: connection.execute(statement))

    async def get(self, delivery_id: str) -> Delivery:
        """Raises NotFound."""
        found = await self._rows(select(*_BRIEF).where(deliveries.c.id == delivery_id))
        if not found:
            raise errors.NotFound(f"There is no delivery {delivery_id}.")
        return found[0]

    async def retry(self, delivery_id: str) -> Delivery:
        """Send it again now, whatever became of it, with all its tries. Raises NotFound."""
        again = update(deliveries).where(deliveries.c.id == delivery_id)
        fresh = again.values(next_at=time.time(), attempts=0, delivered_at=None)
        await self._database.write(lambda connection: connection.execute(fresh))
        return await self.get(delivery_id)

    async def page(
        self,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        state: DeliveryState | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Newest first, without their payloads. Raises InvalidRequest for a bad cursor."""
        statement = select(*_BRIEF).order_by(deliveries.c.id.desc()).limit(limit + 1)
        for column, value in ((deliveries.c.tenant, tenant), (deliveries.c.subject, subject)):
            if value is not None:
                statement = statement.where(column == value)
        if state is not None:
            statement = statement.where(_STATES[state])
        if cursor is not None:
            statement = statement.where(deliveries.c.id < read_cursor(cursor))
        found = await self._rows(statement)
        more = len(found) > limit
        return Page(found[:limit], make_cursor(found[limit - 1].id) if more else None)

    async def sweep(self, keep: float) -> None:
        """Forget messages that were made longer ago and will not be sent any more."""
        old = and_(deliveries.c.next_at.is_(None), deliveries.c.created_at < time.time() - keep)
        await self._database.write(lambda connection: connection.execute(delete(deliveries).where(old)))

    async def _rows(self, statement: Select[Any]) -> list[Delivery]:
        def work(connection: Connection) -> list[Delivery]:
            return [Delivery(**row) for row in connection.execute(statement).mappings()]

        return await self._database.read(work)
