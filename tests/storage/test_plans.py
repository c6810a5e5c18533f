"""The queries that run often find their rows by an index, also when the table is long (SQLite's planner)."""

import pytest
from sqlalchemy import Connection, event

from inferq.job import JobState, new_job_id
from storage.dead import Criteria, DeadLetters, Mark
from storage.groups import GroupStore
from storage.ledger import Ledger
from storage.schedules import ScheduleStore
from storage.statements import make_cursor
from storage.waiting import Waiting
from tests.storage.builders import spec

MARK = Mark(1.0, new_job_id())
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    ("call", "index"),
    [
        (lambda ledger: ledger.get("x"), "sqlite_autoindex_jobs_1"),
        (lambda ledger: ledger.list_jobs(cursor=make_cursor(new_job_id())), "sqlite_autoindex_jobs_1"),
        (lambda ledger: ledger.list_jobs(state="queued"), "ix_jobs_state_id"),
        (lambda ledger: ledger.list_jobs(tenant="x"), "ix_jobs_tenant_id"),
        (lambda ledger: ledger.list_jobs(source="x"), "ix_jobs_source_id"),
        (lambda ledger: ledger.unfinished(after="x"), "ix_jobs_unfinished"),
        (lambda ledger: ledger.unfinished_among(["x", "y"]), "sqlite_autoindex_jobs_1"),
        (lambda ledger: ledger.undelivered("watch:"), "ix_jobs_undelivered"),
        (lambda ledger: ledger.accept(spec(), bound=9), "ix_jobs_offline"),
        (lambda ledger: dead(ledger).newest(Criteria()), "ix_jobs_dead "),
        (lambda ledger: dead(ledger).newest(Criteria(), MARK), "ix_jobs_dead "),
        (lambda ledger: dead(ledger).oldest(Criteria(model="x"), MARK, limit=9), "ix_jobs_dead_model"),
        (lambda ledger: dead(ledger).newest(Criteria(tenant="x", since=1.0)), "ix_jobs_dead_tenant"),
        (lambda ledger: dead(ledger).newest(Criteria(code="x")), "ix_jobs_dead_code"),
        (lambda ledger: ledger.counts(), "sqlite_autoindex_jobs_1"),
        (lambda ledger: ledger.spans(0.0), "sqlite_autoindex_jobs_1"),
    ],
)
async def test_each_often_run_query_has_its_index(ledger: Ledger, call, index: str):
    seen: list[tuple[str, object]] = []

    @event.listens_for(ledger.database._runner.engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, parameters, _context, _many):
        seen.append((statement, parameters))

    await call(ledger)
    selects = [each for each in seen if each[0].startswith("SELECT")]
    plan = await ledger.database.read(lambda connection: explain(connection, *selects[-1]))
    assert index in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan


@pytest.mark.parametrize(
    ("call", "index"),
    [
        (lambda ledger: Waiting(ledger.database).release(now=1.0, limit=9), "ix_jobs_due"),
        (lambda ledger: Waiting(ledger.database).unfilled(now=1.0, limit=9), "ix_jobs_due"),
        (lambda ledger: Waiting(ledger.database).expire(now=1.0, limit=9), "ix_jobs_scheduled_expiry"),
        (lambda ledger: GroupStore(ledger.database).cancel("x"), "ix_jobs_group_id_id"),
        (lambda ledger: ScheduleStore(ledger.database).due(now=1.0, limit=9), "ix_schedules_next_at"),
        (
            lambda ledger: ledger.accept(spec(due_at=1.0), state=JobState.SCHEDULED, most_scheduled=9),
            "ix_jobs_scheduled_tenant",
        ),
    ],
)
async def test_what_is_asked_each_second_has_its_index(ledger: Ledger, call, index: str):
    seen: list[tuple[str, object]] = []

    @event.listens_for(ledger.database._runner.engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, parameters, _context, _many):
        seen.append((statement, parameters))

    await call(ledger)
    asked = [each for each in seen if each[0].startswith(("SELECT", "UPDATE"))]
    plans = [
        await ledger.database.read(lambda connection, each=each: explain(connection, *each)) for each in asked
    ]
    assert any(index in plan for plan in plans), plans


def explain(connection: Connection, statement: str, parameters: object) -> str:
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    return "; ".join(row[3] for row in rows)


def dead(ledger: Ledger) -> DeadLetters:
    return DeadLetters(ledger.database)
