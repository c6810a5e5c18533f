"""What has to happen exactly once when jobs end, in the transaction in which their rows become terminal.

Everything that makes rows terminal calls `ended` with the ids of the rows that it has just changed: the recorder's
events, cancels, expiry, jobs that are filed as ended. It must not look at rows of other jobs than those, those that
wait for them, and those of their groups. All of them are noted for whoever listens to the commit.
"""

import time
from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from inferq.job import Job
from storage import deliveries, dependents
from storage.database import notes_of
from storage.dependents import FINAL, pages
from storage.rows import BRIEF, job_of
from storage.tables import groups, jobs


def ended(connection: Connection, job_ids: Sequence[str], *, known: Sequence[Job] = ()) -> None:
    """These jobs' rows have become terminal in this transaction, each for the first time in its generation.

    Jobs that waited for them and cannot run any more end here too, and those that waited for these. `known` are jobs of
    whose end more is known than their rows say, also such as nobody can wait for.
    """
    every = wave = list(dict.fromkeys(job_ids))
    while wave := dependents.tell(connection, wave):
        every = every + wave
    # Last: groups are locked after all jobs, by everybody, so that nobody waits in a circle.
    finished = _finish_groups(connection, every)
    deliveries.tell(connection, every, finished)
    notes = notes_of(connection)
    if notes is not None:
        others = set(every).difference(job.id for job in known)
        notes += [*known, *_rows(connection, sorted(others))]


def _rows(connection: Connection, job_ids: Sequence[str]) -> list[Job]:
    """These jobs, without their bodies and results."""
    found: list[Job] = []
    for some in pages(job_ids):
        rows = connection.execute(select(*BRIEF).where(jobs.c.id.in_(some)).order_by(jobs.c.id))
        found += [job_of(row) for row in rows.mappings()]
    return found


def _finish_groups(connection: Connection, ended: Sequence[str]) -> list[str]:
    """These jobs have ended: note the end of the groups in which nothing goes on any more, and say which these are.

    A group that is finished stays so, also when a job of it is run again.
    """
    touched: set[str] = set()
    for some in pages(ended):
        named = select(jobs.c.group_id).where(jobs.c.id.in_(some), jobs.c.group_id.is_not(None))
        touched |= set(connection.scalars(named.distinct()))
    finished: list[str] = []
    for ids in pages(sorted(touched)):
        # Locked before it is counted: of two transactions that each end one of the last two jobs, the later one
        # counts again after the earlier has committed.
        held = select(groups.c.id).where(groups.c.id.in_(ids), groups.c.finished_at.is_(None))
        open_ones = list(connection.scalars(held.order_by(groups.c.id).with_for_update()))
        going = select(jobs.c.id).where(jobs.c.group_id == groups.c.id, jobs.c.rank < FINAL)
        done = update(groups).where(groups.c.id.in_(open_ones), ~going.exists())
        finished += connection.scalars(done.values(finished_at=time.time()).returning(groups.c.id))
    return finished
