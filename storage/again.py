"""A job that has ended begins its next generation. Who may ask for that, and whether it still may, is known before."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, update

from inferq.job import Job
from storage import dependents, statements, waiting
from storage.rows import job_of, requeued_values
from storage.tables import jobs


def run_again(
    connection: Connection, job: Job, changes: Mapping[str, Any], *, expires_at: float | None
) -> Job:
    """The job as it begins again, with `changes` (columns of a spec) and durable: queued, and given up at `expires_at`.

    When its body still has to be filled with other jobs' results and none is given, it is scheduled, and waits for
    those jobs again. Its row must be locked. Raises what `waiting.begin` raises.
    """
    waits = "body" not in changes and dependents.unfilled(connection, job.id)
    fresh = requeued_values(job.generation + 1, waits=waits) | {"durable": True, "kept": True}
    deadline = None if waits else expires_at
    connection.execute(
        update(jobs).where(jobs.c.id == job.id).values(**fresh, **changes, expires_at=deadline)
    )
    dependents.forget(connection, job.id)
    if waits:
        waiting.begin(connection, [job.spec])
    row = connection.execute(statements.JOB_BY_ID, {"job_id": job.id}).mappings().one()
    return job_of(row)
