"""The ledger's SQL that is more than a plain select or update: the forward-only upsert, and page filters.

It builds statements and runs none.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, TextClause, and_, bindparam, select, text

from inferq import errors
from inferq.job import RANK, JobState, is_job_id
from storage.rows import BRIEF, STANDING, WHOLE
from storage.tables import jobs

FINAL = RANK[JobState.SUCCEEDED]
"""The rank of all terminal states."""


def _insert_job(on_conflict: str) -> TextClause:
    """Inserting as text: both databases spell ON CONFLICT alike, and SQLAlchemy would compile its own each time."""
    columns = [column.name for column in jobs.c]
    values = ", ".join(f":{name}" for name in columns)
    # The names are this package's own columns; what comes from outside is bound.
    insert = f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({values}) ON CONFLICT (id) {on_conflict}"  # noqa: S608
    return text(insert).bindparams(*(bindparam(column.name, type_=column.type) for column in jobs.c))


JOB_BY_ID = select(*WHOLE).where(jobs.c.id == bindparam("job_id"))
"""One job, whole (parameter `job_id`)."""

LOCKED = (
    select(jobs.c.id, jobs.c.generation, jobs.c.rank)
    .where(jobs.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(jobs.c.id)
    .with_for_update()
)
"""Where jobs stand (parameter `ids`), locked in one order until the transaction ends."""

INSERT_JOB = _insert_job("DO NOTHING")
"""Insert a job (all columns); nothing happens when its id exists."""

RECORD_JOB = _insert_job(
    f"""
    DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in STANDING)}
    WHERE excluded.generation > jobs.generation
       OR excluded.generation = jobs.generation AND jobs.rank < {FINAL} AND (
              excluded.rank = {FINAL}
           OR excluded.attempt > jobs.attempt
           OR excluded.attempt = jobs.attempt AND excluded.rank > jobs.rank
       )
    """
)
"""Insert a job (all columns), or move its row forward. Rows are ordered by (generation, final or not, attempt, rank):

1. A newer generation replaces an older one, never the reverse.
2. In one generation a final state stays as it is, whatever comes.
3. A final state replaces any other: a job handed back without an attempt spent may end with a lower attempt than was
   seen running, and must end all the same.
4. Otherwise the higher attempt wins, then the higher rank.

So events in any order, and any of them twice, end in the same row. What was asked is never changed here.
"""

MOVE_OFFSET = text("UPDATE offsets SET position = :new WHERE stream = :stream AND position = :old")
"""Move a stream's position from `old` to `new`."""

FIRST_OFFSET = text(
    "INSERT INTO offsets (stream, position) VALUES (:stream, :new) ON CONFLICT (stream) DO NOTHING"
)
"""Give a stream its first position."""

PUT_OFFSET = text(
    "INSERT INTO offsets (stream, position) VALUES (:stream, :new) "
    "ON CONFLICT (stream) DO UPDATE SET position = excluded.position"
)
"""Set a stream's position, whatever it was."""


def select_page(
    filters: Mapping[str, Any], ids: Sequence[str] | None, cursor: str | None, limit: int
) -> Select[Any]:
    """Jobs that match all filters that are not None, newest first, after `cursor`; one more than `limit`.

    With `ids` only jobs among these.
    """
    statement = select(*BRIEF).order_by(jobs.c.id.desc()).limit(limit + 1)
    for name, value in filters.items():
        if value is not None:
            statement = statement.where(jobs.c[name] == value)
    if ids is not None:
        statement = statement.where(jobs.c.id.in_(ids))
    if cursor is not None:
        statement = statement.where(jobs.c.id < read_cursor(cursor))
    return statement


def make_cursor(job_id: str) -> str:
    """The opaque text that continues a list after this job."""
    return base64.urlsafe_b64encode(job_id.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> str:
    """The job's id in a cursor. Raises InvalidRequest."""
    try:
        job_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        job_id = ""
    if not is_job_id(job_id):
        raise errors.InvalidRequest("cursor is not one that this server gave", param="cursor")
    return job_id


def starts_with(prefix: str) -> ColumnElement[bool]:
    """Rows whose source starts with `prefix`, as a range that an index serves."""
    inside = jobs.c.source >= prefix
    # The last code point that text may hold sorts after every continuation of the prefix.
    return and_(inside, jobs.c.source < prefix + "\U0010ffff") if prefix else inside
