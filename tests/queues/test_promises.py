"""What a waiting job is promised, how that came out, and that the next promises follow it."""

import time

import pytest

from inferq.fallback import Reroute
from inferq.job import Failure
from queues import overview
from queues.capacity import Capacities
from queues.presence import Learnt, Presence, ReplicaInfo
from queues.queue import NOBODY, Capacity
from tests.queues.builders import DONE, MODEL, PREFIX, Bench, bench, settings_for, spec

SERVED = {MODEL: {"engine": "noop", "source": "none"}}


async def waiting(b: Bench, capacity: Capacity, ahead: int) -> str:
    """A job with so many device seconds before it."""
    await b.redis.hset(f"{PREFIX}order:{MODEL}", "rate", 1)
    for _ in range(ahead):
        await b.accepted(units=1.0)
    asked = spec(units=1.0)
    standing = await b.queue.accept(asked, "direct", capacity=capacity)
    assert standing.ahead == ahead
    return asked.id


async def shown(redis_url: str, **changes: object) -> Capacity:
    settings = settings_for(redis_url, models=SERVED)
    async with bench(redis_url) as b:
        values = {"name": "r", "model": MODEL, "device": "cpu:0", "node": "n", "pid": 1, "slots": 1}
        await Presence(b.redis, PREFIX).show_replica(
            ReplicaInfo(**{**values, "state": "ready", "since": time.time(), **changes})
        )
        return await Capacities(b.queue, settings).of(MODEL)


async def test_a_wait_is_the_work_ahead_over_the_replicas(redis_url: str):
    async with bench(redis_url) as b:
        await b.redis.hset(f"{PREFIX}order:{MODEL}", "rate", 1)
        for _ in range(6):
            await b.accepted(units=1.0)
        standing = await b.queue.accept(spec(units=1.0), "direct", capacity=Capacity(2, 0.0))
        assert (standing.position, standing.ahead, standing.eta) == (7, 6.0, 3.0)


async def test_a_model_that_is_loading_starts_later(redis_url: str):
    async with bench(redis_url) as b:
        job_id = await waiting(b, Capacity(1, 20.0), ahead=2)
        assert (await b.queue.standing(job_id, Capacity(1, 20.0))).eta == 22.0


async def test_nothing_is_promised_while_nobody_serves(redis_url: str):
    async with bench(redis_url) as b:
        job_id = await waiting(b, Capacity(0, 0.0), ahead=2)
        assert (await b.queue.standing(job_id)).eta is None
        assert await b.field(job_id, "eta") is None


@pytest.mark.parametrize("paused", [f"pause:model:{MODEL}", "pause:lane:medium", "pause:tenant:default"])
async def test_nothing_is_promised_of_what_is_paused(redis_url: str, paused: str):
    async with bench(redis_url) as b:
        before = await waiting(b, Capacity(1, 0.0), ahead=2)
        await b.scripts("control", 0, paused, "why")
        asked = spec(units=1.0)
        assert (await b.queue.accept(asked, "direct", capacity=Capacity(1, 0.0))).eta is None
        assert await b.field(asked.id, "eta") is None
        assert (await b.queue.standing(before, Capacity(1, 0.0))).eta is None
        await b.scripts("control", 0, paused, "")
        assert (await b.queue.standing(before, Capacity(1, 0.0))).eta == 2.0


async def test_a_tenant_that_runs_all_it_may_is_promised_nothing(redis_url: str):
    async with bench(redis_url) as b:
        await b.scripts("control", 0, "running:tenants", "1")
        await b.running(tenant="a")
        for tenant, eta in (("a", None), ("b", 0.0)):
            asked = spec(tenant=tenant)
            assert (await b.queue.accept(asked, "direct", capacity=Capacity(1, 0.0))).eta == eta


async def test_a_pause_says_nothing_of_promises(redis_url: str):
    async with bench(redis_url) as b:
        job_id = await waiting(b, Capacity(1, 0.0), ahead=2)
        await b.scripts("control", 0, f"pause:model:{MODEL}", "why")
        await b.scripts("control", 0, f"pause:model:{MODEL}", "")
        await b.set_field(job_id, queued=time.time() - 3600)
        for _ in range(3):
            await b.replica().finish(await b.replica().claim(), DONE, claim_next=False)
        assert "cal" not in await b.order()
        assert (await overview.promises(b.redis, PREFIX, [MODEL])) == {}


async def test_what_was_promised_of_one_model_is_not_held_against_another(redis_url: str):
    models = {**SERVED, "spare": {"engine": "noop", "source": "none"}}
    models[MODEL] = {**SERVED[MODEL], "fallback": ["spare"]}
    async with bench(redis_url, models=models) as b:
        job_id = await waiting(b, Capacity(1, 0.0), ahead=2)
        await b.replica().fail_waiting(Failure(code="engine_load_failed", message="no weights", status=503))
        (job,) = [each for each in await b.queue.put_aside(10) if each.id == job_id]
        await b.queue.reroute(job, Reroute("spare", b"{}", 1.0))
        assert (await b.replica(model="spare").claim()).id == job_id
        assert "cal" not in await b.order("spare")


async def test_the_next_promises_follow_how_the_last_came_out(redis_url: str):
    async with bench(redis_url) as b:
        job_id = await waiting(b, Capacity(1, 0.0), ahead=3)
        # It waited six seconds and was promised three.
        await b.set_field(job_id, queued=time.time() - 6)
        replica = b.replica()
        for _ in range(4):
            attempt = await replica.claim()
            await replica.finish(attempt, DONE, claim_next=False)
        assert attempt.id == job_id
        assert float((await b.order())["cal"]) == pytest.approx(1.05, abs=0.02)
        (promised,) = (await overview.promises(b.redis, PREFIX, [MODEL, "other"])).values()
        assert promised.ratios == {
            "0.25": 0, "0.5": 0, "0.8": 0, "1.25": 0, "2": 0, "4": 1, "+Inf": 1,
        }  # fmt: skip
        assert promised.sum == pytest.approx(2.0, abs=0.1)
        later = await b.queue.accept(spec(units=1.0), "direct", capacity=Capacity(1, 10.0))
        assert later.eta == 10.0
        after = await b.queue.accept(spec(units=1.0), "direct", capacity=Capacity(1, 10.0))
        assert after.eta == pytest.approx(11.05, abs=0.02)


async def test_replicas_that_are_ready_count(redis_url: str):
    assert await shown(redis_url) == Capacity(1, 0.0)


async def test_replicas_that_drain_do_not(redis_url: str):
    assert (await shown(redis_url, draining=True)).replicas == 0


@pytest.mark.parametrize("field", ["drain:node:n", "drain:replica:r"])
async def test_replicas_that_are_drained_do_not(redis_url: str, field: str):
    async with bench(redis_url) as b:
        learnt = Learnt(source="noop none", device="cpu:0", at=1.0, load_seconds=30.0)
        await Presence(b.redis, PREFIX).learn(MODEL, learnt)
        await b.scripts("control", 0, field, "drain")
    assert await shown(redis_url) == NOBODY


async def test_a_load_is_expected_to_take_as_long_as_the_last(redis_url: str):
    async with bench(redis_url) as b:
        learnt = Learnt(source="noop none", device="cpu:0", at=1.0, load_seconds=30.0)
        await Presence(b.redis, PREFIX).learn(MODEL, learnt)
    capacity = await shown(redis_url, state="starting", since=time.time() - 10)
    assert capacity.replicas == 1
    assert capacity.delay == pytest.approx(20.0, abs=1.0)
