"""Pauses before another attempt, and deadlines: what waits for the clock comes back, expires, or can be cancelled."""

import time

from queues.attempts import Finish, Outcome
from tests.queues.builders import AGAIN, BACK, CANCELLED, DONE, PREFIX, bench, spec

LATER = Finish(outcome=Outcome.RETRY, failure=AGAIN.failure, delay=60.0, seconds=2.0)
HOUR = 3600.0


async def test_a_job_that_pauses_is_not_claimed_before_its_time(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        assert (await b.replica().finish(attempt, LATER, claim_next=True)) == ("scheduled", None)
        job = await b.queue.get(attempt.id)
        assert (job.state, job.attempt) == ("scheduled", 1)
        assert 50 < job.spec.due_at - time.time() < 70
        assert await b.replica().claim() is None
        assert await b.due() == {}
        await b.pauses_end()
        assert await b.due() == {attempt.id: "queued"}
        again = await b.replica().claim()
        assert (again.id, again.job.attempt) == (attempt.id, 2)
        assert again.job.spec.due_at is None
        assert await b.redis.zcard(f"{PREFIX}later") == 0


async def test_a_job_that_pauses_has_paid_for_what_it_used(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.replica().finish(attempt, LATER, claim_next=False)
        assert float((await b.order())["S:default"]) == 2.0
        await b.pauses_end()
        await b.due()
        again = await b.replica().claim()
        await b.replica().finish(again, DONE, claim_next=False)
        assert (await b.queue.get(attempt.id)).device_seconds == 3.0


async def test_the_last_attempt_fails_without_a_pause(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running(max_attempts=1)
        assert (await b.replica().finish(attempt, LATER, claim_next=False))[0] == "failed"
        assert await b.redis.zcard(f"{PREFIX}later") == 0


async def test_a_job_that_pauses_is_cancelled_for_good(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.replica().finish(attempt, LATER, claim_next=False)
        assert await b.queue.cancel(attempt.id, CANCELLED) == "scheduled"
        await b.pauses_end()
        assert await b.due() == {}
        assert await b.state(attempt.id) == "cancelled"


async def test_a_waiting_job_expires_without_a_replica(redis_url: str):
    async with bench(redis_url) as b:
        asked = await b.accepted(expires_at=time.time() + HOUR)
        other = await b.accepted()
        assert await b.due() == {}
        await b.deadlines_pass()
        assert await b.due() == {asked.id: "expired"}
        job = await b.queue.get(asked.id)
        assert (job.state, job.error.code) == ("expired", "expired")
        assert (await b.replica().claim()).id == other.id
        assert (await b.order())["jobs"] == "0"
        assert await b.redis.zcard(f"{PREFIX}expiry") == 0


async def test_a_claim_passes_over_what_has_expired(redis_url: str):
    """Also when the scheduler is away."""
    async with bench(redis_url) as b:
        asked = await b.accepted(expires_at=time.time() + HOUR)
        other = await b.accepted()
        await b.deadlines_pass()
        assert (await b.replica().claim()).id == other.id
        assert await b.state(asked.id) == "expired"
        assert await b.finished() == [(asked.id, "0", "expired")]


async def test_a_running_job_is_not_expired_until_it_comes_back(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running(expires_at=time.time() + HOUR)
        await b.deadlines_pass()
        assert await b.due() == {}
        assert await b.state(attempt.id) == "running"
        assert (await b.replica().finish(attempt, BACK, claim_next=False))[0] == "expired"


async def test_a_pausing_job_expires_at_its_deadline(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running(expires_at=time.time() + HOUR)
        assert (await b.replica().finish(attempt, LATER, claim_next=False))[0] == "scheduled"
        await b.deadlines_pass()
        assert await b.due() == {attempt.id: "expired"}
        assert await b.redis.zcard(f"{PREFIX}later") == 0


async def test_a_lost_job_whose_deadline_has_passed_expires(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running(expires_at=time.time() + HOUR)
        await b.deadlines_pass()
        await b.expire_leases()
        assert await b.reap() == {attempt.id: "expired"}


async def test_the_caller_of_an_expired_job_is_told(redis_url: str):
    async with bench(redis_url) as b:
        await b.redis.xadd(f"{PREFIX}reply:api", {"b": b""})
        asked = spec(expires_at=time.time() + HOUR)
        await b.queue.accept(asked, "direct", reply_to="api")
        await b.deadlines_pass()
        await b.due()
        entries = await b.redis.xrevrange(f"{PREFIX}reply:api", count=1)
        assert b'"expired"' in entries[0][1][b"b"]
