"""A full queue refuses at its stated bound, and a reserved place neither leaks nor is given twice."""

import sqlite3
from pathlib import Path

import pytest

from inferq import errors
from inferq.lanes import Lane
from queues.intake import Accepted
from queues.queue import RESERVATION
from storage.idempotency import Claim
from tests.queues.builders import CANCELLED, PREFIX, bench, spec
from tests.queues.test_tenancy import intake_of, keyed

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


@pytest.mark.parametrize("mode", ["direct", "reserved"])
async def test_a_reserved_place_counts_as_its_job_will(redis_url: str, mode: str):
    """Else those who ask at the same moment get past every bound but that of the whole queue."""
    tenants = {"one": {"max_jobs": 1}, "few bytes": {"max_bytes": 10}}
    async with bench(redis_url, max_queue_bytes=100, max_lane_jobs={"low": 1}, tenants=tenants) as b:

        async def ask(**of: object) -> None:
            asked = spec(**of)
            await (b.queue.reserve(asked) if mode == "reserved" else b.queue.accept(asked, mode))

        await b.queue.reserve(spec(tenant="one"))
        await b.queue.reserve(spec(tenant="few bytes", body=b"x" * 6))
        await b.queue.reserve(spec(lane=Lane.LOW, body=b"x" * 60))
        for bound, of in {
            "its max_jobs": {"tenant": "one"},
            "its max_bytes": {"tenant": "few bytes", "body": b"x" * 5},
            "max_lane_jobs": {"lane": Lane.LOW, "tenant": "other"},
            "max_queue_bytes": {"body": b"x" * 33},
        }.items():
            with pytest.raises(errors.QueueFull, match=bound):
                await ask(**of)
        await ask(body=b"x" * 26)
        await ask(tenant="few bytes", body=b"x" * 4)


async def test_a_place_of_which_nothing_comes_is_given_back(redis_url: str):
    async with bench(redis_url, max_tenant_jobs=1) as b:
        held = spec(tenant="a name with blanks", body=b"x" * 6)
        await b.queue.reserve(held)
        await b.queue.release(held)
        assert await b.redis.zcard(HELD) == 0
        await b.queue.reserve(spec(tenant=held.tenant))


async def test_what_sql_does_not_take_keeps_no_place(redis_url: str, tmp_path: Path):
    """Another call has its idempotency key, or the database is away."""
    async with keyed(redis_url, tmp_path, max_tenant_jobs=2) as (b, storage):
        intake = intake_of(b, storage)

        async def ask(digest: str) -> Accepted:
            claim = Claim(tenant="default", key="key", digest=digest, ttl=60.0)
            return await intake.submit(spec(id=claim.job_id, durable=True), claim=claim)

        assert (await ask("d")).created
        assert (await ask("d")).owner is not None
        assert await b.redis.zcard(HELD) == 0
        with pytest.raises(errors.IdempotencyMismatch):
            await ask("another")
        assert await b.redis.zcard(HELD) == 0
        with sqlite3.connect(tmp_path / "inferq.db") as database:
            database.execute("ALTER TABLE jobs RENAME TO gone")
        with pytest.raises(errors.StoreUnavailable):
            await intake.submit(spec(durable=True))
        assert await b.redis.zcard(HELD) == 0


async def test_without_redis_the_same_job_is_accepted_once(short_dir: Path, tmp_path: Path):
    """Whoever counts accepted jobs is told once."""
    async with keyed(f"unix://{short_dir}/nobody.sock", tmp_path) as (b, storage):
        asked, intake = spec(durable=True), intake_of(b, storage)
        answers = [await intake.submit(asked) for _ in range(2)]
        assert [(each.queued, each.created) for each in answers] == [(False, True), (False, False)]


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
        with pytest.raises(errors.QueueFull, match=r"10 bytes of this key's tenant .*max_bytes"):
            await b.queue.accept(spec(tenant="a", body=b"x" * 5), "direct")
        await b.accepted(tenant="b", body=b"x" * 12)
        await b.queue.cancel(first.id, CANCELLED)
        await b.accepted(tenant="a", body=b"x" * 10)
