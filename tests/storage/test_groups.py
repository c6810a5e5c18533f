"""Groups in SQL: all or none, finished once, however the last job ends."""

import asyncio
import time
from dataclasses import replace

import pytest

from inferq import errors
from inferq.job import JobSpec, JobState, new_job_id
from storage.groups import Group, GroupStore
from storage.ledger import Ledger
from storage.waiting import Waiting
from tests.storage.builders import event, spec

MOST = 100


@pytest.fixture
async def groups(ledger: Ledger) -> GroupStore:
    return GroupStore(ledger.database)


async def accepted(
    groups: GroupStore, *changes: dict, tenant: str = "default"
) -> tuple[Group, list[JobSpec]]:
    group = Group(
        id=new_job_id(), tenant=tenant, total=len(changes), created_at=time.time(), metadata={"a": "b"}
    )
    specs = [spec(group=group.id, tenant=tenant, **each) for each in changes]
    await groups.accept(group, specs, most_scheduled=MOST)
    return group, specs


async def end(
    ledger: Ledger, *specs: JobSpec, state: JobState = JobState.SUCCEEDED, stream: str = "s", **more
):
    old = await ledger.offset(stream)
    new = f"{int(old.split('-')[0]) + 1}-0"
    assert await ledger.record(
        [event(each, state, **more) for each in specs], stream=stream, old=old, new=new
    )


async def finished_at(groups: GroupStore, group: Group) -> float | None:
    return (await groups.get(group.id)).finished_at


async def test_a_group_and_its_jobs_are_there_at_once_and_due(ledger: Ledger, groups: GroupStore):
    group, specs = await accepted(groups, {}, {"due_at": 9e9})
    assert await groups.get(group.id) == replace(group, counts={JobState.SCHEDULED: 2})
    released = await Waiting(ledger.database).release(now=time.time(), limit=9)
    assert [(job.id, job.spec.group) for job in released] == [(specs[0].id, group.id)]
    counts = (await groups.get(group.id)).counts
    assert counts == {JobState.SCHEDULED: 1, JobState.QUEUED: 1}
    page = await ledger.list_jobs(group=group.id)
    assert {job.id for job in page.jobs} == {each.id for each in specs}


async def test_nothing_is_written_of_a_group_that_is_refused(ledger: Ledger, groups: GroupStore):
    for refused, many in (({"depends_on": (new_job_id(),)}, 1), ({}, MOST)):
        group = Group(id=new_job_id(), tenant="default", total=many + 1, created_at=time.time())
        specs = [*(spec(group=group.id) for _ in range(many)), spec(group=group.id, **refused)]
        with pytest.raises((errors.JobNotFound, errors.QueueFull)):
            await groups.accept(group, specs, most_scheduled=MOST)
        assert await groups.get(group.id) is None
        assert await ledger.get(specs[0].id) is None


async def test_a_group_is_finished_when_its_last_job_ends(ledger: Ledger, groups: GroupStore):
    group, (first, second) = await accepted(groups, {}, {})
    await end(ledger, first)
    assert await finished_at(groups, group) is None
    await end(ledger, second, state=JobState.FAILED)
    moment = await finished_at(groups, group)
    assert moment is not None
    await end(ledger, first, second)
    assert await finished_at(groups, group) == moment


async def test_a_requeue_does_not_finish_a_group_again(ledger: Ledger, groups: GroupStore):
    group, (only,) = await accepted(groups, {})
    await end(ledger, only, state=JobState.FAILED)
    moment = await finished_at(groups, group)
    await ledger.requeue(only.id)
    await end(ledger, only, generation=1)
    assert await finished_at(groups, group) == moment


@pytest.mark.parametrize("how", ["cancel", "expire", "root"])
async def test_the_last_end_may_be_any(ledger: Ledger, groups: GroupStore, how: str):
    root = spec()
    await ledger.accept(root)
    group, (first, last) = await accepted(groups, {}, {"depends_on": (root.id,), "expires_at": 1.0})
    await end(ledger, first)
    if how == "cancel":
        await ledger.cancel(last.id)
    elif how == "expire":
        await Waiting(ledger.database).expire(now=2.0, limit=9)
    else:
        await end(ledger, root, state=JobState.FAILED)
    assert await finished_at(groups, group) is not None


async def test_a_group_of_which_no_job_can_run_is_finished_at_once(ledger: Ledger, groups: GroupStore):
    root = spec()
    await ledger.accept(root)
    await ledger.cancel(root.id)
    group, _ = await accepted(groups, {"depends_on": (root.id,)})
    assert (await groups.get(group.id)).counts == {JobState.FAILED: 1}
    assert await finished_at(groups, group) is not None


async def test_two_ends_at_once_finish_a_group(ledger: Ledger, groups: GroupStore):
    for number in range(10):
        group, (first, second) = await accepted(groups, {}, {})
        await asyncio.gather(end(ledger, first, stream=f"a{number}"), ledger.cancel(second.id))
        assert await finished_at(groups, group) is not None


async def test_a_cancel_ends_what_has_not_ended(ledger: Ledger, groups: GroupStore):
    group, (first, second, third) = await accepted(groups, {}, {}, {"due_at": 9e9})
    await end(ledger, first)
    other, _ = await accepted(groups, {})
    assert sorted(await groups.cancel(group.id)) == sorted([(second.id, 0), (third.id, 0)])
    assert (await groups.get(group.id)).counts == {JobState.SUCCEEDED: 1, JobState.CANCELLED: 2}
    assert await finished_at(groups, group) is not None
    assert await groups.cancel(group.id) == []
    assert (await groups.get(other.id)).counts == {JobState.SCHEDULED: 1}


async def test_groups_are_listed_newest_first_by_tenant(groups: GroupStore):
    mine = [(await accepted(groups, {}))[0].id for _ in range(3)]
    theirs = (await accepted(groups, {}, tenant="other"))[0].id
    assert [group.id for group in await groups.list(tenant="default", limit=9)] == mine[::-1]
    assert [group.id for group in await groups.list(tenant=None, limit=1)] == [theirs, mine[-1]]
    assert [group.counts for group in await groups.list(tenant="other", limit=9)] == [{JobState.SCHEDULED: 1}]


async def test_those_that_run_are_counted(ledger: Ledger, groups: GroupStore):
    group, (first, second) = await accepted(groups, {}, {})
    await end(ledger, second)
    ids = [first.id, second.id, new_job_id()]
    assert await groups.unfinished_among(group.id, ids) == 1
    assert await groups.unfinished_among(group.id, []) == 0
