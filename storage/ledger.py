"""The ledger: every durable job from the moment it is accepted, and every job that has ended.

It owns the tables `jobs` and `offsets`. It must not know Redis: who calls, and in which order, is decided in
`queues`. All times are Unix seconds. Every method raises StoreUnavailable when the database is away.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Select, func, literal_column, select, update

from inferq import errors
from inferq.job import TERMINAL, Failure, Job, JobSpec, JobState
from inferq.lanes import Lane
from storage import dependents, endings, statements, usage, waiting
from storage.again import run_again
from storage.database import Database, exclusive
from storage.idempotency import Claim, first, take
from storage.rows import BRIEF, WHOLE, accepted_values, job_of, recorded_values, spec_values
from storage.statements import FINAL
from storage.tables import OFFLINE, UNDELIVERED, UNFINISHED, jobs, offsets

START = "0-0"
"""The position of a stream of which nothing was recorded."""
COUNTED = 10_000
"""At most so many of the newest jobs are looked at for metrics."""
_IDS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event: the whole job as it stood then, and which parts of it are kept."""

    job: Job
    keeps_body: bool = True
    keeps_result: bool = True

    def row(self) -> dict[str, Any]:
        """The values of all columns."""
        row = recorded_values(self.job)
        if not self.keeps_body:
            row["body"] = b""
        if not self.keeps_result:
            row["result"] = None
        return row


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What is compared of a durable job that has not ended; `size` is the length of its body."""

    id: str
    generation: int
    in_queue: bool
    size: int


@dataclass(frozen=True, slots=True)
class Span:
    """When a job that has ended was queued, started and finished; None for what never happened."""

    model: str
    state: JobState
    queued_at: float | None
    started_at: float | None
    finished_at: float


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list; `next_cursor` continues it, None at the end."""

    jobs: list[Job]
    next_cursor: str | None


class Ledger:
    """Jobs in SQL. Safe for concurrent coroutines, and with other processes on the same database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    async def open(cls, url: str, home: Path) -> Self:
        """Connect to a database that `storage.migrate.upgrade` has made. Raises ConfigError too."""
        return cls(await Database.open(url, home))

    async def close(self) -> None:
        await self.database.close()

    async def ping(self) -> None:
        """One round trip to the database."""
        await self.database.ping()

    async def accept(
        self,
        spec: JobSpec,
        *,
        state: JobState = JobState.QUEUED,
        bound: int | None = None,
        most_scheduled: int | None = None,
        error: Failure | None = None,
        claim: Claim | None = None,
    ) -> bool:
        """Commit a new job; that commit is what 202 means. False, and no change, when the id exists already, or
        when the key of `claim` stands for another job. Raises IdempotencyMismatch.

        `bound`: the queue is away; raise QueueFull when more than so many jobs, this one included, would wait in
        SQL alone. Without it a place in Redis is reserved. `most_scheduled` bounds the scheduled jobs of its tenant.
        `error` says why a job is filed as ended already. Raises, for a scheduled job, what `waiting.begin` raises.
        """
        values = spec_values(spec) | accepted_values(spec, state, error)
        # Only what SQL alone accepted counts as not queued.
        values["in_queue"] = bound is None

        def work(connection: Connection) -> bool:
            if claim is not None and take(connection, claim) != spec.id:
                return False
            if bound is not None:
                exclusive(connection, "accept")
            if connection.execute(statements.INSERT_JOB, values).rowcount == 0:
                return False
            if bound is not None and _offline(connection, at_most=bound + 1) > bound:
                raise errors.QueueFull(
                    f"{bound} jobs already wait for the queue to come back", retry_after=30.0
                )
            if state is JobState.SCHEDULED:
                waiting.begin(connection, [spec], at_most=most_scheduled)
            elif state in TERMINAL:
                endings.ended(connection, [spec.id])
            return True

        return await self.database.write(work)

    async def mark_queued(self, ids: Iterable[str]) -> None:
        """Note that Redis holds these jobs."""
        ordered = sorted(set(ids))

        def work(connection: Connection) -> None:
            for start in range(0, len(ordered), _IDS_AT_ONCE):
                some = ordered[start : start + _IDS_AT_ONCE]
                chosen = update(jobs).where(jobs.c.id.in_(some), ~jobs.c.in_queue)
                connection.execute(chosen.values(in_queue=True))

        if ordered:
            await self.database.write(work)

    async def get(self, job_id: str) -> Job | None:
        """The job with its body and result, or None."""
        return await self.database.read(lambda connection: _whole(connection, job_id))

    async def list_jobs(
        self,
        *,
        state: JobState | None = None,
        model: str | None = None,
        lane: Lane | None = None,
        tenant: str | None = None,
        source: str | None = None,
        endpoint: str | None = None,
        durable: bool | None = None,
        group: str | None = None,
        ids: Sequence[str] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Jobs newest first, bodies and results left out; with `ids` only these. Raises InvalidRequest for a bad
        cursor.
        """
        filters = {
            "state": state, "model": model, "lane": lane, "tenant": tenant, "source": source,
            "endpoint": endpoint, "durable": durable, "group_id": group,
        }  # fmt: skip
        found = await self._jobs(statements.select_page(filters, ids, cursor, limit))
        more = len(found) > limit
        return Page(found[:limit], statements.make_cursor(found[limit - 1].id) if more else None)

    async def cancel(self, job_id: str) -> Job | None:
        """Cancel the job unless it has ended; the row after that, or None when there is no such job."""
        statement = (
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.rank < FINAL)
            .values(state=JobState.CANCELLED, rank=FINAL, finished_at=time.time(), progress=None)
        )

        def work(connection: Connection) -> Job | None:
            if connection.execute(statement).rowcount:
                endings.ended(connection, [job_id])
            return _whole(connection, job_id)

        return await self.database.write(work)

    async def set_lane(self, job_id: str, lane: Lane) -> None:
        """Give a job that has not ended another lane."""
        statement = update(jobs).where(jobs.c.id == job_id, jobs.c.rank < FINAL).values(lane=lane.value)
        await self.database.write(lambda connection: connection.execute(statement))

    async def requeue(
        self,
        job_id: str,
        *,
        body: bytes | None = None,
        stream: bool | None = None,
        units: float | None = None,
        lane: Lane | None = None,
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        expires_at: float | None = None,
        claim: Claim | None = None,
    ) -> Job:
        """Begin the next generation of a job that has ended, with the given edits. The job becomes durable.

        It is queued at once, and given up at `expires_at`; but when its body still has to be filled with other jobs'
        results and none is given, it is scheduled, and waits for those jobs again.

        Nothing is changed when an earlier call has the key of `claim`. Raises IdempotencyMismatch, JobNotFound, also
        for such another job, and Conflict when the job has not ended, or when its body was not kept and none is given.
        """
        edits = {
            "body": body,
            "stream": stream,
            "units": units,
            "lane": lane,
            "metadata": metadata,
            "model": model,
        }
        changes = {name: value for name, value in edits.items() if value is not None}

        def work(connection: Connection) -> Job:
            found = _whole(connection, job_id, lock=True)
            if found is not None and claim is not None and not first(connection, claim):
                return found
            job = _requeueable(found, job_id, body)
            return run_again(connection, job, changes, expires_at=expires_at)

        return await self.database.write(work)

    async def record(self, events: Sequence[Recorded], *, stream: str, old: str, new: str) -> bool:
        """Commit events and the stream's position together; False, and nothing written, when it is not `old`.

        Rows only move forward (see `statements.RECORD_JOB`), so events may come twice and in any order.
        """
        # By id, so that recorders that overlap lock rows in the same order.
        rows = [event.row() for event in sorted(events, key=lambda event: event.job.id)]

        def work(connection: Connection) -> bool:
            if not _advance(connection, stream, old, new):
                return False
            if rows:
                ending = _ending(connection, rows)
                connection.execute(statements.RECORD_JOB, rows)
                ended = [row for row in rows if row["id"] in ending]
                done = {event.job.id: event.job for event in events if event.job.id in ending}
                # Nobody can wait for a job of which SQL hears only now: not another job, nor a group or a webhook.
                durable = [row["id"] for row in ended if row["durable"]]
                endings.ended(connection, durable, known=list(done.values()))
                usage.add(connection, ended)
            return True

        return await self.database.write(work)

    async def offset(self, stream: str) -> str:
        """The position up to which a stream is recorded; "0-0" when none of it is."""
        statement = select(offsets.c.position).where(offsets.c.stream == stream)

        def work(connection: Connection) -> str:
            return connection.scalar(statement) or START

        return await self.database.read(work)

    async def reset_offset(self, stream: str, new: str) -> None:
        """Set the position whatever it was: Redis lost its memory and the stream begins again."""
        row = {"stream": stream, "new": new}
        await self.database.write(lambda connection: connection.execute(statements.PUT_OFFSET, row))

    async def unfinished(self, *, after: str = "", limit: int = 500) -> list[Unfinished]:
        """Durable jobs that have not ended and are not scheduled, by id, those after `after`, at most `limit`."""
        columns = (jobs.c.id, jobs.c.generation, jobs.c.in_queue, func.length(jobs.c.body))
        statement = select(*columns).where(UNFINISHED, jobs.c.id > after).order_by(jobs.c.id).limit(limit)

        def work(connection: Connection) -> list[Unfinished]:
            return [Unfinished(*row) for row in connection.execute(statement)]

        return await self.database.read(work)

    async def unfinished_among(self, ids: Sequence[str]) -> list[Job]:
        """Those of these durable jobs that have not ended and are not scheduled, with their bodies."""
        return await self._jobs(select(*WHOLE).where(jobs.c.id.in_(ids), UNFINISHED).order_by(jobs.c.id))

    async def ended_among(self, ids: Sequence[str]) -> list[Job]:
        """Those of these durable jobs that have ended, without their bodies and results."""
        some = select(*BRIEF).where(jobs.c.id.in_(ids), jobs.c.durable, jobs.c.rank == FINAL)
        return await self._jobs(some) if ids else []

    async def undelivered(self, source_prefix: str, limit: int = 100) -> list[Job]:
        """Durable jobs that have ended and are not marked delivered, whose source starts with the prefix."""
        found = select(*WHOLE).where(UNDELIVERED, statements.starts_with(source_prefix))
        return await self._jobs(found.order_by(jobs.c.source, jobs.c.id).limit(limit))

    async def mark_delivered(self, job_id: str, *, generation: int | None = None) -> None:
        """Note that the result reached its place; with `generation`, only the result of that one."""
        statement = update(jobs).where(jobs.c.id == job_id, jobs.c.rank == FINAL).values(delivered=True)
        if generation is not None:
            statement = statement.where(jobs.c.generation == generation)
        await self.database.write(lambda connection: connection.execute(statement))

    async def counts(self) -> dict[tuple[str, JobState], int]:
        """Jobs by model and state among the newest COUNTED ones: for metrics, at a bounded cost."""
        newest = select(jobs.c.model, jobs.c.state).order_by(jobs.c.id.desc()).limit(COUNTED).subquery()
        groups = (newest.c.model, newest.c.state)
        statement = select(*groups, func.count()).group_by(*groups)

        def work(connection: Connection) -> dict[tuple[str, JobState], int]:
            rows = (connection.execute(statement)).all()
            return {(model, JobState(state)): count for model, state, count in rows}

        return await self.database.read(work)

    async def spans(self, since: float) -> list[Span]:
        """Jobs among the newest COUNTED ones that have ended since then."""
        columns = (jobs.c.model, jobs.c.state, jobs.c.queued_at, jobs.c.started_at, jobs.c.finished_at)
        newest = select(*columns).order_by(jobs.c.id.desc()).limit(COUNTED).subquery()
        statement = select(newest).where(newest.c.finished_at >= since)

        def work(connection: Connection) -> list[Span]:
            rows = connection.execute(statement).all()
            return [Span(model, JobState(state), *times) for model, state, *times in rows]

        return await self.database.read(work)

    async def _jobs(self, statement: Select[Any]) -> list[Job]:
        def work(connection: Connection) -> list[Job]:
            return [job_of(row) for row in (connection.execute(statement)).mappings()]

        return await self.database.read(work)


def _whole(connection: Connection, job_id: str, *, lock: bool = False) -> Job | None:
    # SQLite knows no row locks and needs none: the whole transaction is alone.
    statement = statements.JOB_BY_ID.with_for_update() if lock else statements.JOB_BY_ID
    row = connection.execute(statement, {"job_id": job_id}).mappings().first()
    return None if row is None else job_of(row)


def _ending(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Ids of the rows that RECORD_JOB is about to make terminal; they stay locked until then."""
    last = {row["id"]: row["generation"] for row in rows if row["rank"] == FINAL}
    known: dict[str, tuple[int, int]] = {}
    for ids in dependents.pages(sorted(last)):
        found = connection.execute(statements.LOCKED, {"ids": ids})
        known |= {job_id: (generation, rank) for job_id, generation, rank in found}
    return {job_id for job_id, generation in last.items() if known.get(job_id, (-1, 0)) < (generation, FINAL)}


def _advance(connection: Connection, stream: str, old: str, new: str) -> bool:
    moved = connection.execute(statements.MOVE_OFFSET, {"stream": stream, "old": old, "new": new}).rowcount
    if not moved and old == START:
        moved = connection.execute(statements.FIRST_OFFSET, {"stream": stream, "new": new}).rowcount
    return moved > 0


def _offline(connection: Connection, *, at_most: int) -> int:
    some = select(literal_column("1")).select_from(jobs).where(OFFLINE).limit(at_most).subquery()
    return int(connection.scalar(select(func.count()).select_from(some)) or 0)


def _requeueable(job: Job | None, job_id: str, body: bytes | None) -> Job:
    if job is None:
        raise errors.JobNotFound(f"there is no job {job_id}")
    if not job.terminal:
        raise errors.Conflict(f"job {job_id} is {job.state}; only a job that has ended can be queued again")
    if not job.spec.body and body is None:
        raise errors.Conflict(f"the request of job {job_id} was not kept; give a body to queue it again")
    return job
