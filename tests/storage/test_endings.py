"""Each end is told once, and two that happen at once see each other."""

import asyncio
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from inferq.job import JobState, new_job_id
from storage import endings
from storage.groups import Group, GroupStore
from storage.ledger import Ledger
from storage.waiting import Waiting
from tests.storage.builders import event, spec

ON_POSTGRES = pytest.mark.parametrize(
    "backend", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True
)
"""SQLite has one writer at a time."""
_END = "UPDATE jobs SET state = 'succeeded', rank = 3 WHERE id = %s"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What `ended` was called with; it still does its work."""
    calls: list[list[str]] = []
    real = endings.ended

    def ended(connection, job_ids, **more):
        calls.append(sorted(job_ids))
        real(connection, job_ids, **more)

    monkeypatch.setattr(endings, "ended", ended)
    return calls


def ids(calls: list[list[str]]) -> list[str]:
    return [job_id for call in calls for job_id in call]


async def test_an_end_is_told_once_in_each_generation(ledger: Ledger, told: list[list[str]]):
    asked, new, other = spec(), spec(), spec()
    await ledger.accept(asked)
    await ledger.accept(other)
    both = [event(asked, JobState.FAILED), event(new), event(other, JobState.RUNNING)]
    await ledger.record(both, stream="s", old="0-0", new="1-0")
    assert sorted(ids(told)) == sorted([asked.id, new.id])
    told.clear()
    await ledger.record(both, stream="s", old="1-0", new="2-0")
    await ledger.record(both, stream="s", old="0-0", new="2-0")
    await ledger.cancel(asked.id)
    assert ids(told) == []
    await ledger.requeue(asked.id)
    await ledger.record([event(asked)], stream="s", old="2-0", new="3-0")
    assert ids(told) == []
    await ledger.record([event(asked, generation=1)], stream="s", old="3-0", new="4-0")
    assert ids(told) == [asked.id]


async def test_of_an_interactive_job_nobody_is_told(ledger: Ledger, told: list[list[str]]):
    asked, alone = spec(), spec(durable=False)
    await ledger.accept(asked)
    await ledger.record([event(alone), event(asked)], stream="s", old="0-0", new="1-0")
    assert ids(told) == [asked.id]


async def test_a_cancel_and_the_event_that_follows_are_one_end(ledger: Ledger, told: list[list[str]]):
    asked = spec()
    await ledger.accept(asked)
    await ledger.cancel(asked.id)
    await ledger.cancel(asked.id)
    await ledger.record([event(asked)], stream="s", old="0-0", new="1-0")
    assert ids(told) == [asked.id]


async def test_who_listens_hears_of_each_end_once(ledger: Ledger):
    heard: list[list[tuple[str, str]]] = []
    ledger.database.listen(lambda jobs: heard.append([(job.id, str(job.state)) for job in jobs]))
    queued, late, waits, alone = spec(), spec(due_at=2e9), spec(), spec(durable=False)
    waits = replace(waits, depends_on=(queued.id,))
    await ledger.accept(queued)
    for asked in (late, waits):
        await ledger.accept(asked, state=JobState.SCHEDULED)
    assert heard == []
    await ledger.cancel(late.id)
    await ledger.cancel(late.id)
    assert heard == [[(late.id, "cancelled")]]
    ends = [event(queued, JobState.FAILED), event(alone)]
    for old, new in (("0-0", "1-0"), ("1-0", "1-0"), ("1-0", "2-0")):
        await ledger.record(ends, stream="s", old=old, new=new)
    assert heard[1:] == [[(queued.id, "failed"), (alone.id, "succeeded"), (waits.id, "failed")]]


@pytest.mark.parametrize("bound", [None, 9], ids=["in Redis", "without Redis"])
async def test_who_listens_hears_of_a_cancel_what_sql_says(ledger: Ledger, bound: int | None):
    """And not what a replica that had not heard of it made of the job."""
    heard: list[tuple[str, str]] = []
    ledger.database.listen(lambda jobs: heard.extend((job.id, str(job.state)) for job in jobs))
    asked = spec()
    await ledger.accept(asked, bound=bound)
    await ledger.cancel(asked.id)
    await ledger.record([event(asked)], stream="s", old="0-0", new="1-0")
    assert heard == [(asked.id, "cancelled")]


async def test_an_end_reads_no_body_and_no_large_result(ledger: Ledger):
    heard: list[object] = []
    ledger.database.listen(heard.extend)
    group = Group(id=new_job_id(), tenant="default", total=20, created_at=1.0)
    url = "https://hooks.example/inferq"
    asked = [spec(group=group.id, body=bytes(2**20), due_at=2e9, webhook=url) for _ in range(20)]
    await GroupStore(ledger.database).accept(group, asked, most_scheduled=99)
    tracemalloc.start()
    await GroupStore(ledger.database).cancel(group.id)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(heard) == 20
    assert most < 5 * 2**20


async def test_nobody_hears_of_what_was_not_committed(ledger: Ledger):
    heard: list[object] = []
    ledger.database.listen(heard.append)
    first, again = spec(due_at=2e9), spec(due_at=2e9)
    await ledger.accept(first, state=JobState.SCHEDULED)

    def fails(connection):
        endings.ended(connection, [first.id])
        raise ValueError

    with pytest.raises(ValueError):
        await ledger.database.write(fails)
    assert heard == []
    await ledger.accept(again, state=JobState.SCHEDULED)
    assert heard == [], "what was noted then is not told now"


async def test_a_transaction_that_is_tried_again_is_heard_once(ledger: Ledger):
    heard: list[list[object]] = []
    ledger.database.listen(heard.append)
    asked = spec(due_at=2e9)
    await ledger.accept(asked, state=JobState.SCHEDULED)
    lost = sqlite3.OperationalError("database is locked")
    lost.sqlite_errorcode, lost.sqlstate = sqlite3.SQLITE_BUSY, "40P01"
    faults = [OperationalError("COMMIT", None, lost)]

    def work(connection):
        endings.ended(connection, [asked.id])
        if faults:
            raise faults.pop()

    await ledger.database.write(work)
    assert [len(notes) for notes in heard] == [1]


async def test_a_job_that_is_filed_as_ended_is_told(ledger: Ledger, told: list[list[str]]):
    lost = spec(durable=False)
    for _ in range(2):
        await ledger.accept(lost, state=JobState.FAILED)
    assert ids(told) == [lost.id]


@asynccontextmanager
async def another(url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A transaction of another process."""
    async with await psycopg.AsyncConnection.connect(url.replace("+asyncpg", "")) as connection:
        yield connection


async def beside(connection: psycopg.AsyncConnection, work: Awaitable[object]) -> None:
    """Begin `work` while the other transaction is open, and commit that one once the work waits for it or is done."""
    task = asyncio.ensure_future(work)
    async with await psycopg.AsyncConnection.connect(connection.info.dsn, autocommit=True) as watcher:
        blocked = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity"
        )
        blocked += " WHERE datname = current_database())"
        async with asyncio.timeout(15):
            while not task.done() and (await (await watcher.execute(blocked)).fetchone())[0] == 0:
                await asyncio.sleep(0.01)
    await connection.commit()
    await task


@ON_POSTGRES
async def test_an_accept_waits_for_the_end_of_what_it_depends_on(ledger: Ledger, url: str):
    root = spec()
    await ledger.accept(root)
    child = spec(depends_on=(root.id,))
    async with another(url) as other:
        await other.execute(_END, [root.id])
        await other.execute("DELETE FROM dependencies WHERE needs = %s", [root.id])
        await beside(other, ledger.accept(child, state=JobState.SCHEDULED))
    released = await Waiting(ledger.database).release(now=9e9, limit=9)
    assert [job.id for job in released] == [child.id]


@ON_POSTGRES
async def test_the_later_of_two_ends_finishes_the_group(ledger: Ledger, url: str):
    groups = GroupStore(ledger.database)
    group = Group(id=new_job_id(), tenant="default", total=2, created_at=1.0)
    first, second = spec(group=group.id), spec(group=group.id)
    await groups.accept(group, [first, second], most_scheduled=9)
    async with another(url) as other:
        await other.execute(_END, [first.id])
        await other.execute("SELECT id FROM groups WHERE id = %s FOR UPDATE", [group.id])
        await beside(other, ledger.cancel(second.id))
    assert (await groups.get(group.id)).finished_at is not None
