"""Accepting jobs: the commit that 202 means."""

import pytest

from inferq import errors
from inferq.job import Failure, JobState
from inferq.lanes import Lane
from storage.ledger import Ledger
from tests.storage.builders import event, spec


async def test_accepted_job_is_read_back_whole(ledger: Ledger):
    asked = spec(
        body=b"\x00\xff{}",
        lane=Lane.HIGH,
        tenant="ünit",
        stream=True,
        units=12.5,
        max_attempts=7,
        source="watch:/in/ä.json",
        run_timeout=1.5,
        metadata={"deep": [1, {"ü": None}]},
    )
    assert await ledger.accept(asked)
    job = await ledger.get(asked.id)
    assert job is not None
    assert job.spec == asked
    assert (job.state, job.generation, job.attempt, job.queued_at) == (
        JobState.QUEUED,
        0,
        0,
        asked.created_at,
    )


async def test_scheduled_job_has_not_been_queued(ledger: Ledger):
    asked = spec()
    await ledger.accept(asked, state=JobState.SCHEDULED)
    job = await ledger.get(asked.id)
    assert (job.state, job.queued_at) == (JobState.SCHEDULED, None)


async def test_a_job_may_be_filed_as_ended_with_its_cause(ledger: Ledger):
    asked, lost = spec(durable=False), Failure(code="redis_lost", message="no memory", status=503)
    await ledger.accept(asked, state=JobState.FAILED, error=lost)
    job = await ledger.get(asked.id)
    assert (job.state, job.error, job.queued_at) == (JobState.FAILED, lost, None)
    assert job.finished_at is not None
    await ledger.record([event(asked)], stream="s", old="0-0", new="1-0")
    assert await ledger.get(asked.id) == job


async def test_same_id_again_changes_nothing(ledger: Ledger):
    asked = spec()
    await ledger.accept(asked)
    await ledger.cancel(asked.id)
    assert not await ledger.accept(spec(id=asked.id, model="other"))
    job = await ledger.get(asked.id)
    assert (job.spec, job.state) == (asked, JobState.CANCELLED)


async def test_unknown_job_is_none(ledger: Ledger):
    assert await ledger.get(spec().id) is None


async def test_bound_refuses_one_more_and_writes_nothing(ledger: Ledger):
    for _ in range(2):
        await ledger.accept(spec(), bound=2)
    refused = spec()
    with pytest.raises(errors.QueueFull) as caught:
        await ledger.accept(refused, bound=2)
    assert caught.value.retry_after
    assert await ledger.get(refused.id) is None


async def test_bound_lets_a_known_id_through(ledger: Ledger):
    asked = spec()
    await ledger.accept(asked, bound=1)
    assert not await ledger.accept(asked, bound=1)


async def test_bound_counts_neither_queued_nor_ended_jobs(ledger: Ledger):
    queued, cancelled, finished, running, reserved = (spec() for _ in range(5))
    for asked in (queued, cancelled, finished, running):
        await ledger.accept(asked, bound=9)
    await ledger.accept(reserved)
    await ledger.mark_queued([queued.id, queued.id])
    await ledger.cancel(cancelled.id)
    events = [event(finished), event(running, JobState.RUNNING)]
    await ledger.record(events, stream="s", old="0-0", new="1-0")
    assert await ledger.accept(spec(), bound=1)


async def test_many_ids_are_marked_at_once(ledger: Ledger):
    ids = [spec().id for _ in range(1200)]
    kept = [spec(id=ids[0]), spec(id=ids[-1])]
    for asked in kept:
        await ledger.accept(asked, bound=9)
    await ledger.mark_queued(iter(ids))
    assert await ledger.accept(spec(), bound=1)


async def test_requeued_job_counts_as_not_queued(ledger: Ledger):
    asked = spec()
    await ledger.accept(asked)
    await ledger.mark_queued([asked.id])
    await ledger.cancel(asked.id)
    await ledger.requeue(asked.id)
    with pytest.raises(errors.QueueFull):
        await ledger.accept(spec(), bound=1)


async def test_text_that_a_database_cannot_hold_is_made_fit(ledger: Ledger):
    asked = spec(
        source="watch:a\x00\udce4.json", tenant="t\x00", metadata={"nan": float("nan"), "nul": "\x00"}
    )
    await ledger.accept(asked)
    poison = Failure(code="engine_error", message="bad \x00 byte \udcff", param="\x00")
    await ledger.record([event(asked, JobState.FAILED, error=poison)], stream="s", old="0-0", new="1-0")
    job = await ledger.get(asked.id)
    assert job.spec.source == "watch:a\ufffd?.json"
    assert job.spec.metadata == {"nan": None, "nul": "\x00"}
    assert job.error == Failure(code="engine_error", message="bad \ufffd byte ?", param="\ufffd")
