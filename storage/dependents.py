"""Which jobs wait for which others: the rows of `dependencies`, and what an end means for those who waited for it.

A row stands for one thing that a scheduled job still waits for: another job's id, or INPUTS. Everything here runs
inside a transaction that its caller began. It must not start one, nor decide when a job is due.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from inferq import errors
from inferq.inputs import asks_for_results
from inferq.job import RANK, JobSpec, JobState, OnDependencyFailure
from storage.tables import dependencies, jobs

INPUTS = "inputs"
"""What a job waits for, beside others, whose request takes parts of their results that are not filled in yet."""
AT_ONCE = 500
"""Ids in one statement."""
FINAL = RANK[JobState.SUCCEEDED]

_ENDS = {
    JobState.FAILED: "failed",
    JobState.CANCELLED: "was cancelled",
    JobState.EXPIRED: "expired before it started",
}

_FAIL = (
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.rank == 0)
    .values(
        state=JobState.FAILED.value,
        rank=FINAL,
        finished_at=bindparam("now"),
        error_code="dependency_failed",
        error_message=bindparam("message"),
        error_status=424,
        error_param=None,
    )
)


def begin(connection: Connection, specs: Sequence[JobSpec]) -> list[str]:
    """These new scheduled jobs begin to wait for those that they name. Which of them failed at once, on that account.

    Raises JobNotFound for a job that is not there or is another tenant's, InvalidRequest for one that cannot be waited
    for.
    """
    waiting = [spec for spec in specs if spec.depends_on]
    if not waiting:
        return []
    needed = _lock(connection, {need for spec in waiting for need in spec.depends_on})
    for spec in waiting:
        for need in spec.depends_on:
            _refuse_unfit(spec, need, needed.get(need))
    _insert(connection, waiting)
    return tell(connection, [need for need, row in needed.items() if row["rank"] == FINAL])


def tell(connection: Connection, ended: Sequence[str]) -> list[str]:
    """These jobs have ended: nobody waits for them any more, and they for nothing. Who fails on that account, also of
    those that waited for one that fails.

    Those with nothing left to wait for are due now, or at their time.
    """
    failed = _fail(connection, _doomed(connection, ended))
    freed: set[str] = set()
    for some in pages(ended):
        own = delete(dependencies).where(dependencies.c.job_id.in_(some), dependencies.c.needs != INPUTS)
        connection.execute(own)
        gone = delete(dependencies).where(dependencies.c.needs.in_(some))
        freed |= set(connection.scalars(gone.returning(dependencies.c.job_id)))
    _make_due(connection, sorted(freed - set(failed)))
    return failed


def unfilled(connection: Connection, job_id: str) -> bool:
    """Whether parts of the job's request are still to come from other jobs' results."""
    found = select(dependencies.c.job_id).where(
        dependencies.c.job_id == job_id, dependencies.c.needs == INPUTS
    )
    return connection.scalar(found) is not None


def forget(connection: Connection, job_id: str, *, inputs_only: bool = False) -> None:
    """The job waits for nothing any more; with `inputs_only`, its request is filled in."""
    gone = delete(dependencies).where(dependencies.c.job_id == job_id)
    connection.execute(gone.where(dependencies.c.needs == INPUTS) if inputs_only else gone)


def pages(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """`ids` in parts that one statement can name."""
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]


def _lock(connection: Connection, ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The rows of needed jobs, kept from ending until this transaction has: an end must see who waits for it."""
    columns = (jobs.c.id, jobs.c.tenant, jobs.c.rank, jobs.c.durable)
    found: dict[str, Mapping[str, Any]] = {}
    for some in pages(sorted(ids)):
        # SQLite knows no row locks and needs none: the whole transaction is alone.
        statement = select(*columns).where(jobs.c.id.in_(some)).order_by(jobs.c.id).with_for_update(read=True)
        found |= {row["id"]: row for row in connection.execute(statement).mappings()}
    return found


def _refuse_unfit(spec: JobSpec, need: str, row: Mapping[str, Any] | None) -> None:
    if row is None or row["tenant"] != spec.tenant:
        raise errors.JobNotFound(
            f"There is no job {need} of yours, which 'depends_on' names.", param="depends_on"
        )
    if row["rank"] < FINAL and not row["durable"]:
        raise errors.InvalidRequest(
            f"Job {need} is an interactive call that has not ended; only durable jobs can be waited for.",
            param="depends_on",
        )


def _insert(connection: Connection, waiting: Sequence[JobSpec]) -> None:
    rows = [{"job_id": spec.id, "needs": need} for spec in waiting for need in spec.depends_on]
    rows += [{"job_id": spec.id, "needs": INPUTS} for spec in waiting if asks_for_results(spec.body)]
    insert = insert_postgresql if connection.dialect.name == "postgresql" else insert_sqlite
    connection.execute(insert(dependencies).on_conflict_do_nothing(), rows)


def _doomed(connection: Connection, ended: Sequence[str]) -> dict[str, str]:
    """Job and the message of its failure, for those that cannot run any more: a job failed that they waited for, or one
    that this one waited for, and so on.
    """
    bad: dict[str, str] = {}
    for some in pages(sorted(set(ended))):
        states = select(jobs.c.id, jobs.c.state).where(
            jobs.c.id.in_(some), jobs.c.state.in_([state.value for state in _ENDS])
        )
        bad |= {job_id: _ENDS[JobState(state)] for job_id, state in connection.execute(states)}
    waits = select(dependencies.c.job_id, dependencies.c.needs).join(
        jobs, (jobs.c.id == dependencies.c.job_id) & (jobs.c.rank == 0)
        & (jobs.c.depends_on["on_failure"].as_string() != OnDependencyFailure.RUN.value),
    )  # fmt: skip
    reasons: dict[str, str] = {}
    for some in pages(sorted(bad)):
        doomed = waits.where(dependencies.c.needs.in_(some)).cte("doomed", recursive=True)
        # Walked in the database: a chain is as long as its owner likes.
        doomed = doomed.union(waits.join(doomed, doomed.c.job_id == dependencies.c.needs))
        for job_id, need in connection.execute(select(doomed.c.job_id, doomed.c.needs)):
            how = bad.get(need, _ENDS[JobState.FAILED])
            reasons[job_id] = f"Job {need}, which this one waited for, {how}."
    return reasons


def _fail(connection: Connection, reasons: Mapping[str, str]) -> list[str]:
    failed = []
    for job_id, message in sorted(reasons.items()):
        values = {"job_id": job_id, "message": message, "now": time.time()}
        if connection.execute(_FAIL, values).rowcount:
            failed.append(job_id)
    return failed


def _make_due(connection: Connection, ids: Sequence[str]) -> None:
    """Give those a time that have nothing left to wait for, and none of their own."""
    for some in pages(ids):
        held = select(dependencies.c.job_id).where(
            dependencies.c.job_id == jobs.c.id, dependencies.c.needs != INPUTS
        )
        due = update(jobs).where(jobs.c.id.in_(some), jobs.c.rank == 0, jobs.c.due_at.is_(None))
        connection.execute(due.where(~held.exists()).values(due_at=time.time()))
