"""Groups: jobs that were accepted together and are looked at together. A group is finished once, when its last job ends.

It owns the table `groups`. What a group's jobs do is theirs; here they are only counted.
"""

import time
from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from storage.dependents import FINAL, pages
from storage.tables import groups, jobs


def finish(connection: Connection, ended: Sequence[str]) -> list[str]:
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
