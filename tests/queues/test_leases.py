"""Leases end, and what then happens to the job; cancelling in each state; what the recorder may let go."""

from dataclasses import replace

import orjson
import pytest

from queues import frames
from queues.frames import FrameKind
from tests.queues.builders import CANCELLED, DONE, MODEL, PREFIX, Bench, bench, spec


async def settle(b: Bench, entries: list[bytes], *triples: object) -> None:
    await b.scripts("settle", len(entries), *entries, *triples)


async def test_renewal_keeps_a_lease(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.expire_leases()
        assert await b.replica().renew([(attempt.id, attempt.token, None)]) == [True]
        assert await b.reap() == {}


async def test_renewal_tells_of_each_attempt_by_itself(redis_url: str):
    async with bench(redis_url) as b:
        kept = await b.running()
        other = await b.running()
        renewed = await b.replica().renew(
            [(kept.id, kept.token, None), (other.id, kept.token, None), ("x", "y", None)]
        )
        assert renewed == [True, False, False]


async def test_progress_is_told_once(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        for progress in (0.25, 0.25, 0.5):
            await b.replica().renew([(attempt.id, attempt.token, progress)])
        job = await b.queue.get(attempt.id)
        assert job is not None
        assert job.progress == 0.5
        await b.replica().finish(attempt, DONE, claim_next=False)
        told = [data for _, name, data in [e async for e in b.queue.events(attempt.id)] if name == "progress"]
        assert told == [b"0.2500", b"0.5000"]


async def test_a_lost_job_wakes_a_slot_that_lingers(redis_url: str):
    """Nobody would ring for it again: who accepted it has rung long ago."""
    async with bench(redis_url) as b:
        slot = "s" * 16
        attempt = await b.running()
        assert await b.replica("other").claim(slot) is None
        await b.expire_leases()
        assert await b.scripts("reap", 100) == [attempt.id.encode(), b"queued", MODEL.encode(), 0]
        woken = await b.redis.xrange(f"{PREFIX}ctl:other")
        assert [entry for _, entry in woken] == [{b"wake": slot.encode()}]


async def test_an_expired_lease_costs_an_attempt_and_the_job_waits_again(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running(max_attempts=2)
        assert await b.reap() == {}
        await b.expire_leases()
        assert await b.reap() == {attempt.id: "queued"}
        assert await b.field(attempt.id, "token") is None
        assert (await b.order())["jobs"] == "1"
        again = await b.replica().claim()
        assert again is not None
        assert again.job.attempt == 2


async def test_the_last_lost_attempt_fails_the_job_and_tells_its_caller(redis_url: str):
    async with bench(redis_url) as b:
        await b.queue.accept(spec(max_attempts=1), "direct", reply_to="api")
        attempt = await b.replica().claim()
        assert attempt is not None
        await b.expire_leases()
        assert await b.reap() == {attempt.id: "failed"}
        job = await b.queue.get(attempt.id)
        assert job is not None
        assert job.error is not None
        assert job.error.code == "replica_lost"
        entries = await b.redis.xrevrange(f"{PREFIX}reply:api", count=1)
        [frame] = frames.unpack(entries[0][1][b"b"])
        assert (frame.job_id, frame.kind, orjson.loads(frame.data)["code"]) == (
            attempt.id,
            FrameKind.ERROR,
            "replica_lost",
        )
        assert await b.finished() == [(attempt.id, "0", "failed")]


async def test_a_stream_that_has_begun_is_broken_not_run_again(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running(max_attempts=3)
        assert await b.replica().first_byte(attempt, b"") is True
        await b.expire_leases()
        assert await b.reap() == {attempt.id: "failed"}
        job = await b.queue.get(attempt.id)
        assert job is not None
        assert job.error is not None
        assert job.error.code == "stream_broken"


async def test_a_lost_job_keeps_its_place_before_later_ones(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        later = await b.accepted()
        await b.expire_leases()
        await b.reap()
        claimed = [await b.replica().claim() for _ in range(2)]
        assert [a.id for a in claimed if a] == [attempt.id, later.id]


async def test_a_lost_attempt_is_not_charged(redis_url: str):
    async with bench(redis_url) as b:
        await b.accepted(tenant="a", units=1000.0)
        before = (await b.order())["S:a"]
        await b.replica().claim()
        assert (await b.order())["S:a"] != before
        await b.expire_leases()
        await b.reap()
        assert float((await b.order())["S:a"]) == float(before)


async def test_leases_without_a_running_job_are_swept(redis_url: str):
    async with bench(redis_url) as b:
        await b.redis.zadd(f"{PREFIX}leases", {"forgotten": 1})
        assert await b.reap() == {"forgotten": "gone"}
        assert await b.reap() == {}


async def test_cancelling_a_waiting_job(redis_url: str):
    async with bench(redis_url) as b:
        asked = spec()
        await b.queue.accept(asked, "direct", reply_to="api")
        assert await b.queue.cancel(asked.id, CANCELLED) == "queued"
        assert await b.replica().claim() is None
        job = await b.queue.get(asked.id)
        assert job is not None
        assert (job.state, job.error) == ("cancelled", CANCELLED)
        assert (await b.order())["jobs"] == "0"
        entries = await b.redis.xrevrange(f"{PREFIX}reply:api", count=1)
        [frame] = frames.unpack(entries[0][1][b"b"])
        assert (frame.kind, orjson.loads(frame.data)) == (FrameKind.ERROR, CANCELLED.as_dict())


async def test_cancelling_a_running_job_tells_its_replica(redis_url: str):
    async with bench(redis_url) as b:
        asked = await b.accepted()
        attempt = await b.replica("r1").claim()
        assert attempt is not None
        assert await b.queue.cancel(asked.id, CANCELLED) == "running"
        [(_, told)] = await b.redis.xrange(f"{PREFIX}ctl:r1")
        assert told == {b"cancel": asked.id.encode()}
        assert await b.redis.ttl(f"{PREFIX}ctl:r1") > 0, "its name may never come back"
        assert await b.redis.zcard(f"{PREFIX}leases") == 0
        assert await b.state(asked.id) == "cancelled"


async def test_cancelling_again_changes_nothing(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.replica().finish(attempt, DONE, claim_next=False)
        before = await b.snapshot()
        assert await b.queue.cancel(attempt.id, CANCELLED) == "succeeded"
        assert await b.snapshot() == before


@pytest.mark.parametrize("running", [False, True])
async def test_a_cancel_of_an_older_generation_does_not_touch_a_newer_one(redis_url: str, running: bool):
    async with bench(redis_url) as b:
        asked = spec()
        await b.queue.accept(asked, "restore", generation=2)
        if running:
            assert await b.replica().claim() is not None
        before = await b.snapshot()
        assert await b.queue.cancel(asked.id, CANCELLED, generation=1) == "stale"
        assert await b.snapshot() == before


async def test_settled_jobs_lapse_and_leave_the_stream(redis_url: str):
    async with bench(redis_url) as b:
        attempts = [await b.running() for _ in range(3)]
        for attempt in attempts:
            await b.replica().finish(attempt, DONE, claim_next=False)
        entries = [entry_id for entry_id, _ in await b.redis.xrange(f"{PREFIX}finish")]
        await settle(b, [entries[0], entries[2]], attempts[0].id, 0, 60, attempts[1].id, 0, 600)
        ttls = [await b.redis.ttl(f"{PREFIX}job:{attempt.id}") for attempt in attempts]
        assert 55 < ttls[0] <= 60 < 595 < ttls[1] <= 600
        assert ttls[2] == -1
        assert await b.redis.ttl(f"{PREFIX}events:{attempts[0].id}") > 0
        assert await b.finished() == [(attempts[1].id, "0", "succeeded")]


async def test_a_job_of_another_generation_is_not_settled(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.replica().finish(attempt, DONE, claim_next=False)
        await settle(b, [], attempt.id, 1, 60)
        assert await b.redis.ttl(f"{PREFIX}job:{attempt.id}") == -1


@pytest.mark.parametrize("running", [False, True])
async def test_a_live_job_is_not_settled(redis_url: str, running: bool):
    async with bench(redis_url) as b:
        job_id = (await b.running()).id if running else (await b.accepted()).id
        await settle(b, [], job_id, 0, 60)
        assert await b.redis.ttl(f"{PREFIX}job:{job_id}") == -1


async def test_the_first_byte_is_written_where_its_caller_reads(redis_url: str):
    async with bench(redis_url) as b:
        await b.queue.accept(spec(), "direct", reply_to="api")
        attempt = await b.replica().claim()
        assert attempt is not None
        assert await b.replica().first_byte(attempt, b"frame") is True
        assert (await b.redis.xrevrange(f"{PREFIX}reply:api", count=1))[0][1] == {b"b": b"frame"}


async def test_no_reply_stream_is_made_for_a_caller_who_has_gone(redis_url: str):
    async with bench(redis_url) as b:
        await b.queue.accept(spec(), "direct", reply_to="api")
        attempt = await b.replica().claim()
        assert attempt is not None
        await b.redis.delete(f"{PREFIX}reply:api")
        await b.replica().first_byte(attempt, b"frame")
        await b.replica().finish(attempt, replace(DONE, frame=b"frame"), claim_next=False)
        assert await b.redis.exists(f"{PREFIX}reply:api") == 0
