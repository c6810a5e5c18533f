"""A full queue refuses at its stated bound, and a reserved place neither leaks nor is given twice."""

import pytest

from inferq import errors
from inferq.lanes import Lane
from queues.queue import RESERVATION
from tests.queues.builders import CANCELLED, PREFIX, bench, spec

HELD = f"{PREFIX}held:demo"


async def test_one_job_above_the_bound_is_refused(redis_url: str):
    async with bench(redis_url, max_queue_size=2) as b:
        await b.accepted()
        await b.accepted()
        with pytest.raises(errors.QueueFull, match=r"max_queue_size") as refusal:
            await b.queue.accept(spec(), "direct")
        assert (await b.order())["jobs"] == "2"
        assert refusal.value.retry_after == 1.0


@pytest.mark.parametrize(("waiting", "retry_after"), [(1.0, 1.0), (200.0, 20.0), (9000.0, 60.0)])
async def test_retry_after_follows_the_work_that_waits(redis_url: str, waiting: float, retry_after: float):
    async with bench(redis_url, max_queue_size=1) as b:
        await b.redis.hset(f"{PREFIX}order:demo", "rate", 1)
        await b.accepted(units=waiting)
        with pytest.raises(errors.QueueFull) as refusal:
            await b.queue.reserve(spec())
        assert refusal.value.retry_after == retry_after


async def test_bytes_are_bounded(redis_url: str):
    async with bench(redis_url, max_queue_bytes=100) as b:
        await b.accepted(body=b"x" * 60)
        with pytest.raises(errors.QueueFull, match=r"max_queue_bytes"):
            await b.queue.accept(spec(body=b"x" * 41), "direct")
        await b.accepted(body=b"x" * 40)


async def test_a_tenant_is_bounded_and_others_are_not(redis_url: str):
    async with bench(redis_url, max_tenant_jobs=1) as b:
        await b.accepted(tenant="a")
        with pytest.raises(errors.QueueFull, match=r"max_tenant_jobs"):
            await b.queue.accept(spec(tenant="a"), "direct")
        await b.accepted(tenant="b")


async def test_a_reserved_place_counts(redis_url: str):
    async with bench(redis_url, max_queue_size=1) as b:
        held = spec()
        await b.queue.reserve(held)
        with pytest.raises(errors.QueueFull):
            await b.queue.accept(spec(), "direct")
        with pytest.raises(errors.QueueFull):
            await b.queue.reserve(spec())
        assert await b.queue.accept(held, "reserved") is not None


async def test_the_holder_of_the_last_place_may_ask_again(redis_url: str):
    async with bench(redis_url, max_queue_size=1) as b:
        held = spec()
        await b.queue.reserve(held)
        await b.queue.reserve(held)
        assert await b.redis.zcard(HELD) == 1


@pytest.mark.parametrize("mode", ["direct", "reserved"])
async def test_a_reservation_lapses(redis_url: str, mode: str):
    async with bench(redis_url, max_queue_size=1) as b:
        await b.queue.reserve(spec())
        until = (await b.redis.zrange(HELD, 0, -1, withscores=True))[0][1]
        now = (await b.redis.time())[0]
        assert RESERVATION - 2 < until - now <= RESERVATION + 1
        await b.redis.zadd(HELD, dict.fromkeys(await b.redis.zrange(HELD, 0, -1), now - 1))
        late = spec()
        if mode == "reserved":
            await b.queue.reserve(late)
        assert await b.queue.accept(late, mode) is not None


async def test_a_reservation_does_not_outlive_its_job(redis_url: str):
    async with bench(redis_url) as b:
        held = spec()
        await b.queue.reserve(held)
        await b.queue.accept(held, "reserved")
        assert await b.redis.zcard(HELD) == 0
        await b.queue.reserve(held)
        assert await b.queue.accept(held, "reserved") is None, "Redis holds the job"
        assert await b.redis.zcard(HELD) == 0


async def test_restored_jobs_pass_the_bound(redis_url: str):
    async with bench(redis_url, max_queue_size=1) as b:
        await b.accepted()
        assert await b.queue.accept(spec(), "restore") is not None


async def test_a_refused_job_leaves_nothing(redis_url: str):
    async with bench(redis_url, max_queue_size=1) as b:
        await b.accepted()
        before = await b.snapshot()
        with pytest.raises(errors.QueueFull):
            await b.queue.accept(spec(tenant="other"), "direct")
        assert await b.snapshot() == before


async def test_asking_whether_it_is_full_keeps_no_place(redis_url: str):
    async with bench(redis_url, max_queue_size=2, max_tenant_jobs=1) as b:
        for _ in range(3):
            await b.queue.refuse_full("demo", "a", Lane.LOW)
        await b.accepted(tenant="a")
        with pytest.raises(errors.QueueFull, match="max_tenant_jobs"):
            await b.queue.refuse_full("demo", "a", Lane.LOW)
        await b.queue.refuse_full("demo", "b", Lane.LOW)
        await b.accepted(tenant="b")
        with pytest.raises(errors.QueueFull, match="max_queue_size") as refusal:
            await b.queue.refuse_full("demo", "c", Lane.LOW)
        assert refusal.value.details == {"model": "demo"}


async def test_a_lane_has_a_bound_of_its_own(redis_url: str):
    async with bench(redis_url, max_lane_jobs={"low": 1}) as b:
        await b.accepted(lane=Lane.LOW)
        with pytest.raises(errors.QueueFull, match=r"1 jobs of the lane low .*max_lane_jobs"):
            await b.queue.accept(spec(lane=Lane.LOW), "direct")
        await b.accepted(lane=Lane.HIGH)
        await b.accepted(lane=Lane.HIGH)


async def test_the_bytes_of_a_tenant_are_bounded(redis_url: str):
    async with bench(redis_url, tenants={"*": {"max_bytes": 10}, "b": {"max_bytes": 12}}) as b:
        first = await b.accepted(tenant="a", body=b"x" * 6)
        with pytest.raises(errors.QueueFull, match=r"10 bytes of this key .*max_bytes"):
            await b.queue.accept(spec(tenant="a", body=b"x" * 5), "direct")
        await b.accepted(tenant="b", body=b"x" * 12)
        await b.queue.cancel(first.id, CANCELLED)
        await b.accepted(tenant="a", body=b"x" * 10)
