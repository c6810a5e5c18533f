"""Token buckets and budgets: who is over one is refused by name, and told when to come back."""

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from inferq import errors
from queues import spending
from queues.attempts import Finish, Outcome
from queues.bounds import DAY
from queues.queue import NO_RATES
from queues.recorder import Recorder
from storage import migrate
from storage.ledger import Ledger
from storage.usage import UsageStore
from tests.queues.builders import BACK, BROKEN, CANCELLED, DONE, PREFIX, Bench, bench, spec

URL = "sqlite:///inferq.db"
RATE = f"{PREFIX}rate:default"


async def pass_time(b: Bench, seconds: float) -> None:
    """The buckets were seen so long ago."""
    at = float(await b.redis.hget(RATE, "at"))
    await b.redis.hset(RATE, "at", at - seconds)


async def test_without_a_bound_nothing_is_counted(redis_url: str):
    async with bench(redis_url) as b:
        assert (await b.queue.accept(spec(), "direct")).rates == NO_RATES
        assert not await b.redis.exists(RATE)


async def test_requests_per_minute_are_a_bucket(redis_url: str):
    async with bench(redis_url, tenants={"*": {"requests_per_minute": 3}}) as b:
        left = [(await b.queue.accept(spec(), "direct")).rates.requests.remaining for _ in range(3)]
        assert left == [2, 1, 0]
        with pytest.raises(errors.RateLimited, match="3 requests per minute") as refusal:
            await b.queue.accept(spec(), "direct")
        assert refusal.value.retry_after == pytest.approx(20, abs=1)
        await pass_time(b, 20)
        rate = (await b.queue.accept(spec(), "direct")).rates.requests
        assert (rate.limit, rate.remaining) == (3, 0)
        assert rate.reset == pytest.approx(60, abs=2)


async def test_tokens_per_minute_are_a_bucket(redis_url: str):
    async with bench(redis_url, tenants={"*": {"tokens_per_minute": 100}}) as b:
        assert (await b.queue.accept(spec(units=70.0), "direct")).rates.tokens.remaining == 30
        with pytest.raises(errors.RateLimited, match="100 tokens per minute") as refusal:
            await b.queue.accept(spec(units=60.0), "direct")
        assert refusal.value.retry_after == pytest.approx(18, abs=1)
        assert (await b.queue.accept(spec(units=25.0), "direct")).rates.tokens.remaining == 5


async def test_what_is_larger_than_its_bucket_waits_for_a_full_one_and_leaves_a_debt(redis_url: str):
    async with bench(redis_url, tenants={"*": {"tokens_per_minute": 100}}) as b:
        assert (await b.queue.accept(spec(units=250.0), "direct")).rates.tokens.remaining == 0
        await pass_time(b, 60)
        with pytest.raises(errors.RateLimited):
            await b.queue.accept(spec(units=1.0), "direct")
        await pass_time(b, 60)
        await b.queue.accept(spec(units=1.0), "direct")
        assert await b.redis.ttl(RATE) > 30


async def test_a_debt_is_over_within_an_hour(redis_url: str):
    """A request may name a most that its model would never say."""
    async with bench(redis_url, tenants={"*": {"tokens_per_minute": 100}}) as b:
        await b.queue.accept(spec(units=1e9), "direct")
        await pass_time(b, 61 * 60)
        await b.queue.accept(spec(units=1.0), "direct")


async def test_tokens_of_what_is_no_text_are_not_counted(redis_url: str):
    async with bench(redis_url, tenants={"*": {"tokens_per_minute": 10}}) as b:
        rates = (await b.queue.accept(spec(units=1e6, endpoint="images/generations"), "direct")).rates
        assert rates.tokens.remaining == 10


async def test_a_refused_request_takes_nothing(redis_url: str):
    tenants = {"*": {"requests_per_minute": 10, "tokens_per_minute": 10}}
    async with bench(redis_url, tenants=tenants, max_queue_size=1) as b:
        await b.accepted(units=1.0)
        before = await b.redis.hgetall(RATE)
        with pytest.raises(errors.QueueFull):
            await b.queue.accept(spec(units=1.0), "direct")
        assert await b.redis.hgetall(RATE) == before


async def test_tenants_have_their_own_buckets_and_bounds(redis_url: str):
    tenants = {"*": {"requests_per_minute": 1}, "big": {"requests_per_minute": 50}}
    async with bench(redis_url, tenants=tenants) as b:
        await b.accepted(tenant="a")
        await b.accepted(tenant="b")
        assert (await b.queue.accept(spec(tenant="big"), "direct")).rates.requests.limit == 50
        with pytest.raises(errors.RateLimited):
            await b.queue.accept(spec(tenant="a"), "direct")


async def test_a_durable_job_pays_when_its_place_is_kept(redis_url: str):
    async with bench(redis_url, tenants={"*": {"requests_per_minute": 2}}) as b:
        asked = spec(durable=True)
        assert (await b.queue.reserve(asked)).requests.remaining == 1
        await b.queue.reserve(asked)
        await b.queue.accept(asked, "reserved")
        assert (await b.queue.reserve(spec())).requests.remaining == 0


async def test_what_was_accepted_before_is_not_asked_again(redis_url: str):
    async with bench(redis_url, tenants={"*": {"requests_per_minute": 1}}) as b:
        await b.accepted()
        assert await b.queue.accept(spec(), "restore") is not None


async def test_device_seconds_of_a_day_are_a_budget(redis_url: str):
    async with bench(redis_url, tenants={"*": {"device_seconds_per_day": 1.5}}) as b:
        for _ in range(2):
            attempt = await b.running()
            await b.replica().finish(attempt, DONE, claim_next=False)
        with pytest.raises(errors.BudgetSpent, match=r"1\.5 device seconds of the day") as refusal:
            await b.queue.accept(spec(), "direct")
        midnight = (math.floor(time.time() / DAY) + 1) * DAY
        assert refusal.value.retry_after == pytest.approx(midnight - time.time(), abs=5)
        await b.accepted(tenant="another")


async def test_a_run_that_is_cancelled_is_owed(redis_url: str):
    """Else whoever hangs up in time has no budget, and pays others for a run of an hour what it was estimated at."""
    stopped = Finish(outcome=Outcome.RETRY, failure=BROKEN, seconds=5.0)
    async with bench(redis_url, tenants={"*": {"device_seconds_per_day": 4.0}}) as b:
        attempt = await b.running()
        await b.queue.cancel(attempt.id, CANCELLED)
        await b.accepted()
        before = float((await b.order())["S:default"])
        est = float(await b.field(attempt.id, "est") or 0)
        for _ in range(2):
            assert await b.replica().finish(attempt, stopped, claim_next=False) == ("stale", None)
        day = str(math.floor(time.time() / DAY))
        assert float(await b.redis.hget(f"{PREFIX}spent:default", day)) == 5.0
        assert float((await b.order())["S:default"]) == pytest.approx(before - est + 5.0)
        job = await b.queue.get(attempt.id)
        assert (job.state, job.error.code, job.device_seconds) == ("cancelled", "cancelled", 5.0)
        with pytest.raises(errors.BudgetSpent):
            await b.queue.accept(spec(), "direct")


async def test_what_is_handed_back_is_not_owed(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.replica().finish(attempt, replace(BACK, seconds=5.0), claim_next=False)
        await b.replica().finish(await b.replica().claim(), DONE, claim_next=False)
        day = str(math.floor(time.time() / DAY))
        assert float(await b.redis.hget(f"{PREFIX}spent:default", day)) == 1.0
        assert (await b.queue.get(attempt.id)).device_seconds == 1.0


async def test_yesterday_counts_for_the_month_alone(redis_url: str):
    tenants = {
        "day": {"device_seconds_per_day": 10.0},
        "month": {"device_seconds_per_month": 10.0},
    }
    today = math.floor(time.time() / DAY)
    first = today - time.gmtime().tm_mday + 1
    async with bench(redis_url, tenants=tenants) as b:
        for tenant in tenants:
            await b.redis.hset(
                f"{PREFIX}spent:{tenant}", mapping={str(first): 9, str(first - 1): 99, str(today): 9}
            )
        await b.accepted(tenant="day")
        if first == today:
            await b.accepted(tenant="month")
        else:
            with pytest.raises(errors.BudgetSpent, match="device seconds of the month"):
                await b.queue.accept(spec(tenant="month"), "direct")


async def test_days_that_no_month_asks_for_are_forgotten(redis_url: str):
    today = math.floor(time.time() / DAY)
    spent = f"{PREFIX}spent:default"
    async with bench(redis_url) as b:
        await b.redis.hset(spent, mapping={str(today - 35): 1, str(today - 36): 1, str(today - 400): 1})
        await b.replica().finish(await b.running(), DONE, claim_next=False)
        assert {int(day) for day in await b.redis.hkeys(spent)} == {today - 35, today}
        assert 34 * DAY < await b.redis.ttl(spent) <= 35 * DAY
        await b.redis.expire(spent, 1000)
        await b.replica().finish(await b.running(), DONE, claim_next=False)
        assert await b.redis.ttl(spent) <= 1000, "looked at again on the same day"


async def test_a_forgetful_redis_gets_what_was_used_back_once(redis_url: str, tmp_path: Path):
    await migrate.upgrade(URL, tmp_path)
    ledger = await Ledger.open(URL, tmp_path)
    async with bench(redis_url, tenants={"*": {"device_seconds_per_day": 4.0}}) as b:
        recorder = Recorder(b.redis, ledger, b.settings)
        for _ in range(3):
            attempt = await b.running()
            await b.replica().finish(attempt, DONE, claim_next=False)
        await recorder.run_once(block_ms=1)
        await b.redis.flushall()
        attempt = await b.running()
        await b.replica().finish(attempt, DONE, claim_next=False)
        await b.accepted()
        assert await b.redis.persist(f"{PREFIX}spent:default")
        usage = UsageStore(ledger.database)
        assert await spending.restore(b.redis, b.scripts, PREFIX, usage)
        assert not await spending.restore(b.redis, b.scripts, PREFIX, usage)
        day = str(math.floor(time.time() / DAY))
        assert 0 < await b.redis.ttl(f"{PREFIX}spent:default") <= 35 * DAY
        assert float(await b.redis.hget(f"{PREFIX}spent:default", day)) == 4.0
        with pytest.raises(errors.BudgetSpent):
            await b.queue.accept(spec(), "direct")
    await ledger.close()
