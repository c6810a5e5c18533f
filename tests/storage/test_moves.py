"""Cancel, requeue, and the lists that the reconciler and the watchers work through."""

import pytest

from inferq import errors
from inferq.job import Failure, JobState
from inferq.lanes import Lane
from storage.ledger import Ledger, Unfinished
from tests.storage.builders import event, spec


async def test_cancel_ends_a_waiting_job_in_its_generation(ledger: Ledger):
    asked = spec()
    await ledger.accept(asked)
    job = await ledger.cancel(asked.id)
    assert (job.state, job.generation) == (JobState.CANCELLED, 0)
    assert job.finished_at is not None
    assert job == await ledger.get(asked.id)


async def test_cancel_leaves_an_ended_job_as_it_is(ledger: Ledger):
    asked = spec()
    await ledger.record([event(asked)], stream="s", old="0-0", new="1-0")
    before = await ledger.get(asked.id)
    assert await ledger.cancel(asked.id) == before


async def test_cancel_of_an_unknown_job_is_none(ledger: Ledger):
    assert await ledger.cancel(spec().id) is None


async def test_requeue_begins_a_clean_generation(ledger: Ledger):
    asked = spec(durable=False, kept=False)
    failure = Failure(code="engine_error", message="no")
    failed = event(asked, JobState.FAILED, attempt=3, error=failure, progress=0.5, artifact="a" * 64)
    await ledger.record([failed], stream="s", old="0-0", new="1-0")
    job = await ledger.requeue(asked.id)
    assert (job.state, job.generation, job.attempt) == (JobState.QUEUED, 1, 0)
    left = (job.error, job.result, job.artifact, job.started_at, job.finished_at, job.replica, job.progress)
    assert left == (None,) * 7
    assert (job.spec.durable, job.spec.kept, job.spec.body) == (True, True, asked.body)
    assert job == await ledger.get(asked.id)


async def test_requeue_takes_edits(ledger: Ledger):
    asked = spec()
    await ledger.accept(asked)
    await ledger.cancel(asked.id)
    edits = {"body": b"new", "lane": Lane.LOW, "metadata": {"a": 1}, "model": "other"}
    edits |= {"stream": True, "units": 7.5}
    job = await ledger.requeue(asked.id, **edits)
    assert {name: getattr(job.spec, name) for name in edits} == edits


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
async def test_requeue_of_a_live_job_is_a_conflict(ledger: Ledger, state: JobState):
    asked = spec()
    await ledger.record([event(asked, state)], stream="s", old="0-0", new="1-0")
    with pytest.raises(errors.Conflict):
        await ledger.requeue(asked.id)
    assert (await ledger.get(asked.id)).generation == 0


async def test_requeue_without_a_kept_body_needs_one(ledger: Ledger):
    asked = spec(body=b"")
    await ledger.record([event(asked)], stream="s", old="0-0", new="1-0")
    with pytest.raises(errors.Conflict):
        await ledger.requeue(asked.id)
    assert (await ledger.requeue(asked.id, body=b"{}")).spec.body == b"{}"


async def test_requeue_of_an_unknown_job(ledger: Ledger):
    with pytest.raises(errors.JobNotFound):
        await ledger.requeue(spec().id)


async def test_unfinished_walks_live_durable_jobs_by_id(ledger: Ledger):
    live = [spec() for _ in range(3)]
    ended, interactive = spec(), spec(durable=False)
    for each in (*live, ended, interactive):
        await ledger.accept(each)
    await ledger.cancel(ended.id)
    ids = sorted(each.id for each in live)
    first = await ledger.unfinished(after="", limit=2)
    assert [job.id for job in first] == ids[:2]
    assert first[0] == Unfinished(ids[0], 0, True, len(live[0].body))
    assert [job.id for job in await ledger.unfinished(after=ids[1], limit=2)] == ids[2:]


async def test_unfinished_among_gives_the_whole_rows_of_those_that_are_so_still(ledger: Ledger):
    live, ended, interactive, other = spec(), spec(), spec(durable=False), spec()
    for each in (live, ended, interactive, other):
        await ledger.accept(each)
    await ledger.cancel(ended.id)
    found = await ledger.unfinished_among([live.id, ended.id, interactive.id])
    assert found == [await ledger.get(live.id)]


async def test_ended_among_names_the_durable_jobs_that_ended(ledger: Ledger):
    live, ended, interactive, other = spec(), spec(), spec(durable=False), spec()
    await ledger.accept(live)
    await ledger.record(
        [event(each) for each in (ended, interactive, other)], stream="s", old="0-0", new="1-0"
    )
    found = await ledger.ended_among([live.id, ended.id, interactive.id, "unknown"])
    assert [(job.id, job.state) for job in found] == [(ended.id, JobState.SUCCEEDED)]
    assert await ledger.ended_among([]) == []


async def test_undelivered_by_the_exact_prefix_of_the_source(ledger: Ledger):
    sources = ["watch:/in/a", "watch:/in/鏡", "watch:/in_b", "watch:/IN/c", "api", "watch%"]
    asked = {source: spec(source=source) for source in sources}
    done = [event(each) for each in asked.values()]
    await ledger.record(done, stream="s", old="0-0", new="1-0")
    found = await ledger.undelivered("watch:/in/", 10)
    assert [job.id for job in found] == [asked["watch:/in/a"].id, asked["watch:/in/鏡"].id]
    assert found[0].result
    assert len(await ledger.undelivered("", 10)) == len(sources)
    assert len(await ledger.undelivered("", 2)) == 2


async def test_undelivered_leaves_out_live_interactive_and_delivered_jobs(ledger: Ledger):
    live, interactive, delivered = spec(), spec(durable=False), spec()
    await ledger.accept(live)
    await ledger.record([event(interactive), event(delivered)], stream="s", old="0-0", new="1-0")
    await ledger.mark_delivered(delivered.id)
    assert await ledger.undelivered("", 10) == []


async def test_late_delivery_of_an_old_generation_does_not_count(ledger: Ledger):
    asked = spec()
    await ledger.record([event(asked)], stream="s", old="0-0", new="1-0")
    await ledger.requeue(asked.id)
    await ledger.record([event(asked, generation=1)], stream="s", old="1-0", new="2-0")
    await ledger.mark_delivered(asked.id, generation=0)
    assert [job.id for job in await ledger.undelivered("", 10)] == [asked.id]
    await ledger.mark_delivered(asked.id, generation=1)
    assert await ledger.undelivered("", 10) == []


async def test_a_job_that_has_not_ended_cannot_be_delivered(ledger: Ledger):
    asked = spec()
    await ledger.accept(asked)
    await ledger.mark_delivered(asked.id)
    await ledger.cancel(asked.id)
    found = await ledger.undelivered("", 10)
    assert [job.id for job in found] == [asked.id]


async def test_next_generation_is_delivered_again(ledger: Ledger):
    asked = spec()
    await ledger.record([event(asked)], stream="s", old="0-0", new="1-0")
    await ledger.mark_delivered(asked.id)
    await ledger.requeue(asked.id)
    await ledger.cancel(asked.id)
    assert [job.id for job in await ledger.undelivered("", 10)] == [asked.id]
    await ledger.mark_delivered(asked.id)
    await ledger.requeue(asked.id)
    await ledger.record([event(asked, generation=2)], stream="s", old="1-0", new="2-0")
    assert [job.id for job in await ledger.undelivered("", 10)] == [asked.id]
