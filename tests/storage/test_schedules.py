"""Schedules in SQL: a run and the step to the next time are one transaction."""

import asyncio
import time
from dataclasses import replace

import pytest

from inferq import errors
from inferq.job import JobState, new_job_id
from storage import schedules as stores
from storage.ledger import Ledger
from storage.schedules import Schedule, ScheduleStore
from tests.storage.builders import spec

MOST = 100


@pytest.fixture
async def schedules(ledger: Ledger) -> ScheduleStore:
    return ScheduleStore(ledger.database)


def schedule(**changes) -> Schedule:
    values = {
        "id": new_job_id(),
        "name": "report",
        "tenant": "default",
        "cron": "@hourly",
        "timezone": "UTC",
        "request": b"{}",
        "created_at": time.time(),
        "next_at": 1000.0,
    }
    return Schedule(**{**values, **changes})


async def created(schedules: ScheduleStore, **changes) -> Schedule:
    made = schedule(**changes)
    await schedules.create(made)
    return made


async def test_a_schedule_is_found_by_id_or_by_its_tenants_name(schedules: ScheduleStore):
    mine, theirs = await created(schedules), await created(schedules, tenant="other")
    assert await schedules.find("report", tenant="default") == mine
    assert await schedules.find(theirs.id, tenant="default") == theirs
    assert await schedules.find("report", tenant="third") is None
    assert await schedules.list(tenant="default") == [mine]
    assert await schedules.list(tenant=None) == [mine, theirs]


async def test_a_name_is_used_once_and_a_tenant_has_so_many(schedules: ScheduleStore, monkeypatch):
    await created(schedules)
    with pytest.raises(errors.Conflict):
        await created(schedules)
    monkeypatch.setattr(stores, "MOST", 1)
    with pytest.raises(errors.AtCapacity):
        await created(schedules, name="other")
    await created(schedules, tenant="other")


async def test_due_is_what_is_not_paused_and_has_come(schedules: ScheduleStore):
    due = await created(schedules, next_at=1000.0)
    await created(schedules, name="later", next_at=1001.0)
    await created(schedules, name="paused", next_at=None, enabled=False)
    assert await schedules.due(now=999.0, limit=9) == []
    assert await schedules.due(now=1000.0, limit=9) == [due]
    assert await schedules.due(now=1000.0, limit=9, without=[due.id]) == []
    assert await schedules.due(now=1000.0, limit=9, tenants=["default"]) == []


async def test_a_run_makes_a_job_and_goes_on(ledger: Ledger, schedules: ScheduleStore):
    made, asked = await created(schedules), spec(due_at=1000.0)
    assert await schedules.fire(made, asked, next_at=4600.0, error=None, most=MOST)
    after = await schedules.find(made.id, tenant="")
    assert (after.next_at, after.last_job, after.last_error) == (4600.0, asked.id, None)
    job = await ledger.get(asked.id)
    assert (job.state, job.spec) == (JobState.SCHEDULED, asked)


async def test_of_many_who_run_it_at_once_one_does(ledger: Ledger, schedules: ScheduleStore):
    made = await created(schedules)
    specs = [spec(due_at=1.0) for _ in range(6)]
    done = await asyncio.gather(
        *(schedules.fire(made, each, next_at=4600.0, error=None, most=MOST) for each in specs)
    )
    assert sorted(done) == [False] * 5 + [True]
    assert len((await ledger.list_jobs()).jobs) == 1


@pytest.mark.parametrize(
    "change", [{"next_at": 2000.0}, {"next_at": None, "enabled": False}, {"request": b"[]"}]
)
async def test_a_schedule_that_was_changed_meanwhile_is_left_alone(
    ledger: Ledger, schedules: ScheduleStore, change: dict
):
    made = await created(schedules)
    changed = await schedules.change(made.id, change)
    assert changed == replace(made, **change)
    assert not await schedules.fire(made, spec(due_at=1.0), next_at=4600.0, error=None, most=MOST)
    assert (await ledger.list_jobs()).jobs == []
    assert await schedules.find(made.id, tenant="") == changed


async def test_a_run_that_finds_no_room_changes_nothing(ledger: Ledger, schedules: ScheduleStore):
    made = await created(schedules)
    await ledger.accept(spec(due_at=9e9), state=JobState.SCHEDULED)
    with pytest.raises(errors.QueueFull):
        await schedules.fire(made, spec(due_at=1.0), next_at=4600.0, error=None, most=1)
    assert await schedules.find(made.id, tenant="") == made
    assert await schedules.fire(made, None, next_at=4600.0, error="no room", most=1)
    after = await schedules.find(made.id, tenant="")
    assert (after.next_at, after.last_error, after.last_job) == (4600.0, "no room", None)


async def test_a_deleted_schedule_is_gone(schedules: ScheduleStore):
    made = await created(schedules)
    assert await schedules.delete(made.id)
    assert not await schedules.delete(made.id)
    assert await schedules.change(made.id, {"enabled": False}) is None
    assert not await schedules.fire(made, spec(due_at=1.0), next_at=2.0, error=None, most=MOST)
