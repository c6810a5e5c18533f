"""Scheduled jobs in SQL: due, released, expired, waiting for others, and what an end means for those who wait."""

import asyncio
import time

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select

from inferq import errors
from inferq.job import Failure, Job, JobSpec, JobState, OnDependencyFailure
from storage import waiting as waiting_module
from storage.ledger import Ledger
from storage.tables import dependencies
from storage.waiting import Waiting
from tests.storage.builders import event, spec

PLACE = b'{"messages": [{"role": "user", "content": "{{jobs.0.a}}"}]}'
SCHEDULED = JobState.SCHEDULED


@pytest.fixture
async def waiting(ledger: Ledger) -> Waiting:
    return Waiting(ledger.database)


async def schedule(ledger: Ledger, **changes) -> JobSpec:
    asked = spec(**changes)
    assert await ledger.accept(asked, state=SCHEDULED)
    return asked


async def end(ledger: Ledger, asked: JobSpec, state: JobState = JobState.SUCCEEDED, **changes) -> None:
    """As the recorder does."""
    old = await ledger.offset("s")
    new = f"{int(old.split('-')[0]) + 1}-0"
    assert await ledger.record([event(asked, state, **changes)], stream="s", old=old, new=new)


async def standing(ledger: Ledger, asked: JobSpec) -> tuple[JobState, str | None]:
    job = await ledger.get(asked.id)
    return job.state, job.error.code if job.error else None


async def released(waiting: Waiting, now: float | None = None, **more) -> list[Job]:
    return await waiting.release(now=time.time() if now is None else now, limit=100, **more)


async def test_a_job_is_released_once_and_not_before_its_time(ledger: Ledger, waiting: Waiting):
    late, early = await schedule(ledger, due_at=2000.0), await schedule(ledger, due_at=1000.0)
    assert await released(waiting, 999.0) == []
    [job] = await released(waiting, 1000.0)
    assert job.spec == early
    assert (job.state, job.queued_at) == (JobState.QUEUED, 1000.0)
    assert job == await ledger.get(early.id)
    assert await released(waiting, 1500.0) == []
    assert [job.id for job in await released(waiting, 2000.0)] == [late.id]


async def test_large_jobs_are_released_a_few_at_a_time(
    ledger: Ledger, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(waiting_module, "MOST_BYTES", 25)
    asked = [await schedule(ledger, due_at=1000.0 + number, body=b"x" * 10) for number in range(4)]
    found = [[job.id for job in await released(waiting, 2000.0)] for _ in range(3)]
    assert found == [[job.id for job in asked[:3]], [asked[3].id], []]


async def test_a_released_job_is_the_reconcilers_and_a_scheduled_one_is_not(ledger: Ledger, waiting: Waiting):
    asked = await schedule(ledger, due_at=1000.0)
    assert await ledger.unfinished() == []
    await released(waiting)
    assert [job.id for job in await ledger.unfinished()] == [asked.id]


async def test_scheduled_jobs_do_not_count_as_offline(ledger: Ledger):
    await schedule(ledger, due_at=1e10)
    assert await ledger.accept(spec(), bound=1)


async def test_two_schedulers_release_each_job_once(ledger: Ledger, waiting: Waiting):
    asked = [await schedule(ledger, due_at=1000.0 + number) for number in range(20)]
    found = await asyncio.gather(*(waiting.release(now=2000.0, limit=7) for _ in range(6)))
    # Who finds that another one has the same jobs may get fewer; the next look finds what is left.
    ids = [job.id for jobs in [*found, await released(waiting, 2000.0)] for job in jobs]
    assert sorted(ids) == sorted(each.id for each in asked)


async def test_release_gives_patience_to_those_without_an_end_of_their_own(ledger: Ledger, waiting: Waiting):
    own, general = await schedule(ledger, due_at=1.0, expires_at=9e9), await schedule(ledger, due_at=2.0)
    await released(waiting, 1000.0, patience=60.0)
    ends = [(await ledger.get(each.id)).spec.expires_at for each in (own, general)]
    assert ends == [9e9, 1060.0]


async def test_a_scheduled_job_expires(ledger: Ledger, waiting: Waiting):
    asked, other = (
        await schedule(ledger, due_at=3000.0, expires_at=2000.0),
        await schedule(ledger, due_at=3.0),
    )
    after = await schedule(ledger, depends_on=(asked.id,))
    assert await waiting.expire(now=1999.0, limit=10) == []
    assert await waiting.expire(now=2000.0, limit=10) == [asked.id]
    assert await standing(ledger, asked) == (JobState.EXPIRED, "expired")
    assert await standing(ledger, after) == (JobState.FAILED, "dependency_failed")
    assert (await standing(ledger, other))[0] is SCHEDULED


async def test_scheduled_jobs_are_bounded_per_tenant(ledger: Ledger):
    for _ in range(2):
        assert await ledger.accept(spec(due_at=9e9), state=SCHEDULED, most_scheduled=2)
    refused = spec(due_at=9e9)
    with pytest.raises(errors.QueueFull, match="max_scheduled_jobs"):
        await ledger.accept(refused, state=SCHEDULED, most_scheduled=2)
    assert await ledger.get(refused.id) is None
    assert await ledger.accept(spec(due_at=9e9, tenant="other"), state=SCHEDULED, most_scheduled=2)


async def test_a_job_is_due_when_the_last_of_those_it_waits_for_has_succeeded(
    ledger: Ledger, waiting: Waiting
):
    first, second = spec(), spec()
    for needed in (first, second):
        await ledger.accept(needed)
    after = await schedule(ledger, depends_on=(first.id, second.id))
    assert (await ledger.get(after.id)).spec == after
    await end(ledger, first)
    assert await released(waiting) == []
    await end(ledger, second)
    assert [job.id for job in await released(waiting)] == [after.id]


async def test_a_job_with_a_time_of_its_own_waits_for_both(ledger: Ledger, waiting: Waiting):
    needed = spec()
    await ledger.accept(needed)
    after = await schedule(ledger, depends_on=(needed.id,), due_at=5000.0)
    assert await released(waiting, 6000.0) == []
    await end(ledger, needed)
    assert await released(waiting, 4999.0) == []
    [job] = await released(waiting, 5000.0)
    assert (job.id, job.spec.due_at) == (after.id, 5000.0)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED])
async def test_a_failed_root_ends_all_that_hangs_on_it(ledger: Ledger, waiting: Waiting, state: JobState):
    root = spec()
    await ledger.accept(root)
    child = await schedule(ledger, depends_on=(root.id,))
    grandchild = await schedule(ledger, depends_on=(child.id,))
    stranger = await schedule(ledger, due_at=9e9)
    await end(ledger, root, state)
    job = await ledger.get(child.id)
    assert (job.state, job.error.code) == (JobState.FAILED, "dependency_failed")
    assert root.id in job.error.message
    assert job.finished_at is not None
    job = await ledger.get(grandchild.id)
    assert (job.state, job.error.code) == (JobState.FAILED, "dependency_failed")
    assert child.id in job.error.message
    assert (await standing(ledger, stranger))[0] is SCHEDULED
    assert await released(waiting) == []


async def test_a_long_chain_ends_in_few_steps(ledger: Ledger):
    """On SQLite nobody else writes meanwhile."""
    links = [spec()]
    await ledger.accept(links[0])
    for _ in range(300):
        links.append(await schedule(ledger, depends_on=(links[-1].id,)))
    statements = 0

    def counted(*_arguments: object) -> None:
        nonlocal statements
        statements += 1

    engine = ledger.database._runner.engine
    sqlalchemy_event.listen(getattr(engine, "sync_engine", engine), "before_cursor_execute", counted)
    await ledger.cancel(links[0].id)
    assert statements < len(links) + 100  # one for each that fails
    assert await standing(ledger, links[-1]) == (JobState.FAILED, "dependency_failed")
    message = (await ledger.get(links[-1].id)).error.message
    assert message == f"Job {links[-2].id}, which this one waited for, failed."


async def test_a_cancel_ends_dependents_too(ledger: Ledger):
    root = await schedule(ledger, due_at=9e9)
    child = await schedule(ledger, depends_on=(root.id,))
    await ledger.cancel(root.id)
    assert await standing(ledger, child) == (JobState.FAILED, "dependency_failed")


async def test_a_job_may_run_whatever_becomes_of_the_others(ledger: Ledger, waiting: Waiting):
    root = spec()
    await ledger.accept(root)
    after = await schedule(ledger, depends_on=(root.id,), on_dependency_failure=OnDependencyFailure.RUN)
    await end(ledger, root, JobState.FAILED)
    [job] = await released(waiting)
    assert job.id == after.id
    assert job.spec.on_dependency_failure is OnDependencyFailure.RUN


async def test_what_ended_before_counts_at_once(ledger: Ledger, waiting: Waiting):
    good, bad = spec(), spec(durable=False)
    await end(ledger, good)
    await end(ledger, bad, JobState.FAILED)
    runs = await schedule(ledger, depends_on=(good.id,))
    fails = await schedule(ledger, depends_on=(good.id, bad.id))
    after = await schedule(ledger, depends_on=(fails.id,))
    assert [job.id for job in await released(waiting)] == [runs.id]
    assert await standing(ledger, fails) == (JobState.FAILED, "dependency_failed")
    assert await standing(ledger, after) == (JobState.FAILED, "dependency_failed")


async def test_only_own_jobs_that_are_there_can_be_waited_for(ledger: Ledger):
    others = spec(tenant="other")
    await ledger.accept(others)
    for need in (others.id, spec().id):
        asked = spec(depends_on=(need,))
        with pytest.raises(errors.JobNotFound, match=need):
            await ledger.accept(asked, state=SCHEDULED)
        assert await ledger.get(asked.id) is None


async def test_a_call_that_goes_on_cannot_be_waited_for(ledger: Ledger):
    call = spec(durable=False)
    await end(ledger, call, JobState.RUNNING)
    with pytest.raises(errors.InvalidRequest, match="interactive"):
        await ledger.accept(spec(depends_on=(call.id,)), state=SCHEDULED)


async def test_an_end_that_is_told_again_changes_nothing(ledger: Ledger, waiting: Waiting):
    root = spec()
    await ledger.accept(root)
    await ledger.cancel(root.id)
    child = await schedule(ledger, depends_on=(root.id,), on_dependency_failure=OnDependencyFailure.RUN)
    await released(waiting)
    await end(ledger, root)
    await ledger.cancel(root.id)
    assert (await standing(ledger, child))[0] is JobState.QUEUED


async def test_an_accept_and_an_end_at_once_leave_nobody_waiting(ledger: Ledger, waiting: Waiting):
    for _ in range(10):
        root = spec()
        await ledger.accept(root)
        child = spec(depends_on=(root.id,))
        await asyncio.gather(end(ledger, root), ledger.accept(child, state=SCHEDULED))
        assert [job.id for job in await released(waiting)] == [child.id]


async def test_nothing_is_left_of_dependencies_that_are_over(ledger: Ledger):
    root, other = spec(), spec()
    await ledger.accept(root)
    await ledger.accept(other)
    child = await schedule(ledger, depends_on=(root.id, other.id))
    await schedule(ledger, depends_on=(child.id,))
    await end(ledger, root, JobState.FAILED)
    count = await ledger.database.read(lambda connection: connection.execute(select(dependencies)).all())
    assert count == []


async def test_a_request_with_places_is_filled_before_it_is_released(ledger: Ledger, waiting: Waiting):
    root = spec()
    await ledger.accept(root)
    asked = await schedule(ledger, depends_on=(root.id,), body=PLACE)
    now = time.time() + 60
    assert await waiting.unfilled(now=now, limit=10) == []
    await end(ledger, root)
    assert await waiting.unfilled(now=now, limit=10) == [(asked.id, "default")]
    assert await waiting.unfilled(now=now, limit=10, without=[asked.id]) == []
    assert await waiting.unfilled(now=now, limit=10, tenants=["default"]) == []
    assert await released(waiting, now) == []
    job = await ledger.get(asked.id)
    assert await waiting.fill(job, body=b"filled", stream=False, units=3.0)
    assert await waiting.unfilled(now=now, limit=10) == []
    [job] = await released(waiting, now)
    assert (job.spec.body, job.spec.units) == (b"filled", 3.0)
    assert not await waiting.fill(job, body=b"again", stream=False, units=3.0)


async def test_a_scheduled_job_can_be_failed_once(ledger: Ledger, waiting: Waiting):
    asked = await schedule(ledger, due_at=1.0)
    child = await schedule(ledger, depends_on=(asked.id,))
    job = await ledger.get(asked.id)
    assert await waiting.fail(job, Failure(code="dependency_input", message="no"))
    assert await standing(ledger, asked) == (JobState.FAILED, "dependency_input")
    assert await standing(ledger, child) == (JobState.FAILED, "dependency_failed")
    assert not await waiting.fail(job, Failure(code="other", message="no"))


async def test_requeue_runs_a_scheduled_job_now(ledger: Ledger):
    root = spec()
    await ledger.accept(root)
    asked = await schedule(ledger, due_at=9e9, expires_at=9e9, depends_on=(root.id,))
    await ledger.cancel(asked.id)
    job = await ledger.requeue(asked.id, expires_at=8e9)
    assert (job.state, job.spec.due_at, job.spec.depends_on) == (JobState.QUEUED, None, ())
    assert job.spec.expires_at == 8e9


async def test_requeue_of_a_request_with_places_waits_for_them_again(ledger: Ledger, waiting: Waiting):
    root = spec()
    await ledger.accept(root)
    asked = await schedule(ledger, depends_on=(root.id,), body=PLACE)
    await end(ledger, root, JobState.FAILED)
    assert (await standing(ledger, asked))[0] is JobState.FAILED
    await ledger.requeue(root.id)
    job = await ledger.requeue(asked.id)
    assert (job.state, job.generation, job.spec.depends_on) == (SCHEDULED, 1, (root.id,))
    await end(ledger, root, generation=1)
    assert await waiting.unfilled(now=time.time() + 1, limit=9) == [(asked.id, "default")]


async def test_requeue_of_a_request_with_places_fails_again_while_its_root_has(ledger: Ledger):
    root = spec()
    await ledger.accept(root)
    asked = await schedule(ledger, depends_on=(root.id,), body=PLACE)
    await ledger.cancel(root.id)
    job = await ledger.requeue(asked.id)
    assert (job.state, job.error.code) == (JobState.FAILED, "dependency_failed")
    job = await ledger.requeue(asked.id, body=b"{}")
    assert (job.state, job.spec.depends_on, job.spec.body) == (JobState.QUEUED, (), b"{}")
