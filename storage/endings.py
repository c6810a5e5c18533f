"""What has to happen exactly once when jobs end, in the transaction in which their rows become terminal.

Everything that makes rows terminal calls `ended` with the ids of the rows that it has just changed: the recorder's
events, cancels, expiry, jobs filed as failed. It must not look at rows of other jobs than those and their dependents.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from storage import deliveries, dependents, groups


def ended(connection: Connection, job_ids: Sequence[str]) -> None:
    """These jobs' rows have become terminal in this transaction, each for the first time in its generation.

    Jobs that waited for them and cannot run any more end here too, and those that waited for these.
    """
    every = wave = list(dict.fromkeys(job_ids))
    while wave := dependents.tell(connection, wave):
        every = every + wave
    # Last: groups are locked after all jobs, by everybody, so that nobody waits in a circle.
    finished = groups.finish(connection, every)
    deliveries.tell(connection, every, finished)
