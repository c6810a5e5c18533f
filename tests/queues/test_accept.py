"""Accepting a job twice is accepting it once; only a higher generation replaces a job, and only one that has ended."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis.asyncio

from inferq import errors
from inferq.job import Job, JobState
from inferq.lanes import Lane
from queues import records
from queues.batches import MOST_BYTES, batches
from queues.queue import NOBODY, Capacity
from tests.queues.builders import CANCELLED, DONE, MODEL, PREFIX, Bench, bench, spec


def arguments(asked, op: str, *, generation: int = 0) -> list:
    """Of the accept script, as one call makes them."""
    return [
        *(op, "direct", 1.0, asked.id, asked.model, asked.tenant, asked.lane.value),
        *(repr(asked.units), len(asked.body), generation, "", 0, 0, 100, 10**6, 100, 100, 10**6, *[0] * 6),
        *records.fields_of(asked, None),
    ]


async def ended(b: Bench) -> str:
    attempt = await b.running()
    await b.replica().finish(attempt, DONE, claim_next=False)
    return attempt.id


async def test_a_repeated_call_is_answered_identically(redis_url: str):
    async with bench(redis_url) as b:
        call = arguments(spec(), "op-1")
        first = await b.scripts("accept", *call)
        assert await b.scripts("accept", *call) == first
        assert first[0] == b"ok"
        assert (await b.order())["jobs"] == "1"


async def test_the_same_id_is_accepted_once(redis_url: str):
    async with bench(redis_url) as b:
        asked = await b.accepted()
        for mode in ("direct", "reserved", "restore"):
            assert await b.queue.accept(asked, mode) is None
        assert (await b.order())["jobs"] == "1"


async def test_running_and_ended_jobs_are_not_queued_again(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        assert await b.queue.accept(attempt.job.spec, "restore") is None
        await b.replica().finish(attempt, DONE, claim_next=False)
        assert await b.queue.accept(attempt.job.spec, "restore") is None
        assert await b.state(attempt.id) == "succeeded"


async def test_position_counts_from_one(redis_url: str):
    async with bench(redis_url) as b:
        standings = [await b.queue.accept(spec(), "direct", capacity=NOBODY) for _ in range(3)]
        assert [s.position for s in standings if s] == [1, 2, 3]


async def test_a_job_is_read_back_whole(redis_url: str):
    async with bench(redis_url) as b:
        asked = await b.accepted(
            body=b"\x00\xff", tenant="ü", lane=Lane.HIGH, stream=True, units=12.5, max_attempts=7, source="cli",
            metadata={"a": [1, "ü"]}, run_timeout=3.5,
        )  # fmt: skip
        job = await b.queue.get(asked.id)
        assert job is not None
        assert job.spec == asked
        assert (job.state, job.attempt, job.generation) == ("queued", 0, 0)


async def test_a_cancel_that_came_first_is_respected(redis_url: str):
    async with bench(redis_url) as b:
        asked = spec()
        assert await b.queue.cancel(asked.id, CANCELLED, generation=1) == "unknown"
        for mode in ("direct", "reserved", "restore"):
            assert await b.queue.accept(asked, mode, generation=1) is None
        assert await b.state(asked.id) is None
        assert 0 < await b.redis.ttl(f"{PREFIX}tomb:{asked.id}") <= 3600


async def test_a_cancel_covers_older_generations_but_no_newer_one(redis_url: str):
    async with bench(redis_url) as b:
        asked = spec()
        await b.queue.cancel(asked.id, CANCELLED, generation=1)
        assert await b.queue.accept(asked, "restore", generation=0) is None
        assert await b.queue.accept(asked, "restore", generation=2) is not None


@pytest.mark.parametrize("ended", [True, False])
async def test_a_cancel_that_finds_an_older_generation_keeps_the_newer_one_out(redis_url: str, ended: bool):
    """SQL has requeued the job and has cancelled it again before Redis heard of either."""
    async with bench(redis_url) as b:
        attempt = await b.running()
        if ended:
            await b.replica().finish(attempt, DONE, claim_next=False)
        await b.queue.cancel(attempt.id, CANCELLED, generation=1)
        assert await b.queue.accept(attempt.job.spec, "restore", generation=1) is None
        assert (await b.order())["jobs"] == "0"
        assert await b.queue.accept(attempt.job.spec, "restore", generation=2) is not None


async def test_a_late_cancel_of_an_older_generation_does_not_lower_the_tombstone(redis_url: str):
    async with bench(redis_url) as b:
        asked = spec()
        await b.queue.cancel(asked.id, CANCELLED, generation=2)
        await b.queue.cancel(asked.id, CANCELLED, generation=0)
        assert await b.queue.accept(asked, "restore", generation=2) is None


async def test_a_higher_generation_replaces_an_ended_job(redis_url: str):
    async with bench(redis_url) as b:
        job_id = await ended(b)
        await b.redis.expire(f"{PREFIX}job:{job_id}", 100)
        assert await b.queue.accept(spec(id=job_id, body=b"[]"), "restore", generation=1) is not None
        job = await b.queue.get(job_id)
        assert job is not None
        assert (job.state, job.generation, job.attempt, job.result, job.finished_at) == (
            "queued",
            1,
            0,
            None,
            None,
        )
        assert job.spec.body == b"[]"
        assert await b.redis.ttl(f"{PREFIX}job:{job_id}") == -1
        assert await b.redis.exists(f"{PREFIX}events:{job_id}") == 0
        attempt = await b.replica().claim()
        assert attempt is not None
        assert attempt.job.attempt == 1


async def test_an_equal_generation_does_not_replace_an_ended_job(redis_url: str):
    async with bench(redis_url) as b:
        job_id = await ended(b)
        assert await b.queue.accept(spec(id=job_id), "restore", generation=0) is None


async def test_a_higher_generation_does_not_replace_a_live_job(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        assert await b.queue.accept(attempt.job.spec, "restore", generation=1) is None
        assert await b.replica().renew([(attempt.id, attempt.token, None)]) == [True]


async def test_scripts_are_loaded_again_after_redis_forgot_them(redis_url: str):
    async with bench(redis_url) as b:
        await b.accepted()
        await b.redis.script_flush()
        attempt = await b.replica().claim()
        assert attempt is not None
        await b.redis.script_flush()
        assert (await b.replica().finish(attempt, DONE, claim_next=True))[0] == "succeeded"


async def test_bells_are_wanted_up_to_the_waiting_jobs(redis_url: str):
    async with bench(redis_url) as b:
        first = await b.queue.accept(spec(), "direct")
        assert first is not None
        assert first.bell_wanted
        await b.redis.lpush(f"{PREFIX}bell.demo", "bell", "bell")
        second = await b.queue.accept(spec(), "direct")
        assert second is not None
        assert not second.bell_wanted


async def test_a_waiting_caller_has_a_reply_stream_from_accept_on(redis_url: str):
    """A caller proves by its call that it is there; a claim must not take it for gone because it has just begun."""
    async with bench(redis_url) as b:
        assert await b.queue.accept(spec(kept=False), "direct", reply_to="api") is not None
        assert await b.redis.exists(f"{PREFIX}reply:api") == 1
        assert 0 < await b.redis.ttl(f"{PREFIX}reply:api") <= 30


async def test_events_end_with_done(redis_url: str):
    async with bench(redis_url) as b:
        job_id = await ended(b)
        names = [(name, data) async for _, name, data in b.queue.events(job_id)]
        assert names == [("state", b"running"), ("done", b"succeeded")]


async def test_events_of_a_forgotten_job_end(redis_url: str):
    async with bench(redis_url) as b:
        assert [e async for e in b.queue.events(spec().id)] == []


async def test_many_followers_do_not_take_the_connections_of_others(redis_url: str):
    """The pool has 32 connections; a follower that blocked in Redis would hold one of them for as long as it waits."""
    async with bench(redis_url) as b:
        attempt = await b.running()
        followers = [b.queue.events(attempt.id) for _ in range(64)]
        for follower in followers:
            await anext(follower)
        ends = [asyncio.create_task(collect(follower)) for follower in followers]
        monitor = redis.asyncio.Redis.from_url(redis_url)
        for _ in range(20):
            await b.queue.ping()
            assert not [c for c in await monitor.client_list() if "b" in c["flags"]], "a follower blocks"
        await monitor.aclose()
        await b.replica().finish(attempt, DONE, claim_next=False)
        assert set(await asyncio.gather(*ends)) == {("done",)}


async def collect(follower: AsyncIterator) -> tuple[str, ...]:
    return tuple([name async for _, name, _ in follower])


@pytest.mark.parametrize("units", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("mode", ["direct", "reserved", "restore"])
async def test_work_of_no_finite_size_changes_nothing(redis_url: str, units: float, mode: str):
    async with bench(redis_url) as b:
        await b.running()
        before = await b.snapshot()
        with pytest.raises(errors.InvalidRequest):
            await b.queue.accept(spec(units=units), mode, weight=2.0)
        with pytest.raises(errors.InvalidRequest):
            await b.queue.accept(spec(), mode, weight=units)
        assert await b.snapshot() == before


async def test_a_virtual_time_of_no_finite_size_begins_again(redis_url: str):
    async with bench(redis_url) as b:
        await b.accepted()
        order = f"{PREFIX}order:{MODEL}"
        broken = {
            "v": "inf",
            "S:default": "inf",
            "vt:default": "inf",
            "F:default:medium": "inf",
            "rate": "nan",
        }
        await b.redis.hset(order, mapping=broken)
        await b.accepted()
        for _ in range(2):
            attempt = await b.replica().claim()
            assert attempt is not None
            await b.replica().finish(attempt, DONE, claim_next=False)
        assert all(math.isfinite(float(value)) for value in (await b.order()).values())


def waiting_job(**changes) -> Job:
    return Job(spec=spec(**changes), state=JobState.QUEUED)


async def test_many_jobs_are_queued_again_in_their_order(redis_url: str):
    async with bench(redis_url, max_queue_size=10) as b:
        jobs = [waiting_job() for _ in range(250)]
        standings = await b.queue.restore(jobs, {MODEL: NOBODY})
        assert [each.position for each in standings] == [*range(1, 251)]
        assert [(await b.replica().claim()).id for _ in jobs] == [job.id for job in jobs]


async def test_of_many_jobs_none_keeps_the_others_out(redis_url: str):
    async with bench(redis_url) as b:
        there, gone = await b.accepted(), spec()
        await b.queue.cancel(gone.id, CANCELLED)
        known, cancelled = Job(spec=there, state=JobState.QUEUED), Job(spec=gone, state=JobState.QUEUED)
        jobs = [waiting_job(), known, cancelled, waiting_job(units=math.inf), waiting_job()]
        standings = await b.queue.restore(jobs)
        assert [each is not None for each in standings] == [True, False, False, False, True]
        assert await b.queue.states([job.id for job in jobs]) == ["queued", "queued", None, None, "queued"]


async def test_many_jobs_keep_their_generation_and_know_who_serves_them(redis_url: str):
    async with bench(redis_url) as b:
        job = replace(waiting_job(), generation=3)
        (standing,) = await b.queue.restore([job], {MODEL: Capacity(1, 5.0)})
        assert standing.eta >= 5.0
        assert (await b.queue.get(job.id)).generation == 3


def test_a_large_job_goes_to_redis_by_itself():
    jobs = [waiting_job(body=b"x" * size) for size in (1, MOST_BYTES, 1, 1)]
    assert [len(batch) for batch in batches(jobs, lambda job: len(job.spec.body))] == [1, 1, 2]


async def test_a_waiting_job_of_a_small_body_is_packed(redis_url: str):
    """As a table of fields it would take four times as much."""
    async with bench(redis_url) as b:
        small, large = await b.accepted(body=b"x" * 4000), await b.accepted(body=b"x" * 5000)
        encodings = [await b.redis.object("ENCODING", f"{PREFIX}job:{each.id}") for each in (small, large)]
        assert encodings[0] in (b"ziplist", b"listpack")
        assert encodings[1] == b"hashtable"
