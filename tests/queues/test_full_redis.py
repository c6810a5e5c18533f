"""Redis at `maxmemory` with noeviction: what frees memory goes on, what needs more is refused and leaves nothing."""

import asyncio
from pathlib import Path

import pytest

from inferq import errors
from queues import layout
from queues.controls import Kind
from queues.leader import Leadership
from queues.presence import Presence, ReplicaInfo
from tests.queues.builders import BACK, CANCELLED, DONE, PREFIX, Bench, bench, eventually, spec
from tests.queues.test_controls import controls
from tests.queues.test_scheduler import scheduler_of


async def fill(b: Bench) -> None:
    """No more memory: any write that may grow is refused from now on."""
    await b.redis.config_set("maxmemory-policy", "noeviction")
    await b.redis.config_set("maxmemory", "1kb")
    with pytest.raises(errors.QueueUnavailable, match="maxmemory"):
        await b.queue.accept(spec(), "direct")


async def test_nothing_is_accepted_or_reserved(redis_url: str):
    async with bench(redis_url) as b:
        held = spec(body=b"x" * 1000)
        await b.queue.reserve(held)
        await fill(b)
        before = await b.snapshot()
        for mode in ("direct", "restore", "reserved"):
            with pytest.raises(errors.QueueUnavailable, match="maxmemory"):
                await b.queue.accept(held, mode)
        with pytest.raises(errors.QueueUnavailable, match="maxmemory"):
            await b.queue.reserve(spec())
        assert await b.snapshot() == before


async def test_running_jobs_are_renewed_and_finished(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        waiting = await b.accepted()
        await fill(b)
        assert await b.replica().renew([(attempt.id, attempt.token, 0.5)]) == [True]
        assert await b.replica().first_byte(attempt, b"") is True
        state, following = await b.replica().finish(attempt, DONE, claim_next=True)
        assert following is not None
        assert (state, following.id) == ("succeeded", waiting.id)
        assert await b.finished() == [(attempt.id, "0", "succeeded")]


async def test_jobs_are_claimed_and_handed_back(redis_url: str):
    async with bench(redis_url) as b:
        await b.accepted()
        await fill(b)
        attempt = await b.replica().claim()
        assert attempt is not None
        assert (await b.replica().finish(attempt, BACK, claim_next=False))[0] == "queued"


async def test_jobs_are_cancelled_whatever_their_state(redis_url: str):
    async with bench(redis_url) as b:
        running = await b.running()
        waiting = await b.accepted()
        await fill(b)
        assert await b.queue.cancel(waiting.id, CANCELLED) == "queued"
        assert await b.queue.cancel(running.id, CANCELLED) == "running"
        assert await b.queue.cancel(spec().id, CANCELLED) == "unknown"


async def test_expired_leases_are_reaped(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.expire_leases()
        await fill(b)
        assert await b.reap() == {attempt.id: "queued"}


async def test_waiting_jobs_of_a_broken_model_are_failed(redis_url: str):
    async with bench(redis_url) as b:
        await b.accepted()
        await fill(b)
        assert await b.replica().fail_waiting(CANCELLED) == 1


async def test_recorded_jobs_are_let_go(redis_url: str):
    """Otherwise nothing would ever free the memory again."""
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.replica().finish(attempt, DONE, claim_next=False)
        await fill(b)
        ((entry_id, _),) = await b.redis.xrange(f"{PREFIX}finish")
        await b.scripts("settle", 1, entry_id, attempt.id, 0, 60)
        assert await b.redis.ttl(f"{PREFIX}job:{attempt.id}") > 0
        assert await b.finished() == []


async def test_processes_that_are_there_stay_known(redis_url: str):
    async with bench(redis_url) as b:
        presence = Presence(b.redis, PREFIX)
        info = ReplicaInfo(
            name="r", model="m", device="cpu:0", node="n", pid=1, state="ready", since=0.0, slots=1
        )
        await presence.show_replica(info)
        await b.redis.expire(f"{PREFIX}replica:r", 2)
        await fill(b)
        with pytest.raises(Exception, match="maxmemory"):
            await presence.show_replica(info)
        assert await b.redis.ttl(f"{PREFIX}replica:r") > 5


async def test_one_leads_and_another_takes_over(redis_url: str):
    async with bench(redis_url) as b:
        assert await layout.claim(b.redis, b.settings.queue)
        await fill(b)
        first, second = Leadership(b.redis, PREFIX), Leadership(b.redis, PREFIX)
        assert await first.hold()
        assert not await second.hold()
        assert await first.hold()
        assert not await layout.claim(b.redis, b.settings.queue)
        await first.release()
        assert await second.hold()


async def test_a_scheduler_leads_and_empties_it(redis_url: str, tmp_path: Path):
    """Ends that nobody records stay, and nobody records without a leader. What budgets have used is put back too."""
    async with bench(redis_url) as b, scheduler_of(b.settings, tmp_path) as scheduler:
        await layout.claim(b.redis, b.settings.queue)
        attempt = await b.running()
        await b.replica().finish(attempt, DONE, claim_next=False)
        await fill(b)
        stopping = asyncio.Event()
        running = asyncio.create_task(scheduler.run(stopping))

        async def recorded() -> bool:
            return await b.finished() == []

        await eventually(recorded)
        assert scheduler._leading.is_set()
        assert await b.redis.ttl(f"{PREFIX}job:{attempt.id}") > 0
        stopping.set()
        await asyncio.wait_for(running, 20)


async def test_operators_can_pause_and_resume(redis_url: str, tmp_path: Path):
    async with controls(redis_url, tmp_path) as (b, c):
        await b.accepted()
        await fill(b)
        assert (await c.pause(Kind.MODEL, "demo")).queued
        assert await b.replica().claim() is None
        assert (await c.resume(Kind.MODEL, "demo")).queued
        assert await b.replica().claim() is not None
