"""Attempts: claiming and finishing answer a repeat identically, and without the lease token nothing is written."""

from dataclasses import replace

import orjson
import pytest

from inferq.job import Failure
from inferq.lanes import Lane
from queues import frames
from queues.attempts import Attempt, Finish, Outcome
from queues.frames import FrameKind
from tests.queues.builders import AGAIN, BACK, BROKEN, DONE, MODEL, PREFIX, Bench, bench

CLAIM = ["op-1", MODEL, "replica", "a" * 16, 15, "", 1]


def finish_call(attempt: Attempt, outcome: str, *, claim_next: bool = False) -> list:
    """Arguments of the finish script, as one call makes them."""
    return [
        *("op-2", attempt.id, attempt.token, outcome, "1.0", "0.0", b"", "1" if claim_next else "0"),
        *(MODEL, "replica", "node", "b" * 16, 15, "", 1),
    ]


async def last_reply(b: Bench, api: str) -> frames.Frame:
    entries = await b.redis.xrevrange(f"{PREFIX}reply:{api}", count=1)
    return list(frames.unpack(entries[0][1][b"b"]))[-1]


async def test_a_claim_leases_the_job(redis_url: str):
    async with bench(redis_url) as b:
        asked = await b.accepted()
        attempt = await b.replica("r1").claim()
        assert attempt is not None
        assert (attempt.id, attempt.job.attempt, attempt.job.replica) == (asked.id, 1, "r1")
        assert attempt.job.spec == asked
        ends = await b.redis.zscore(f"{PREFIX}leases", asked.id)
        assert 10 < ends - (await b.redis.time())[0] <= 16
        assert await b.replica().claim() is None


async def test_a_repeated_claim_is_answered_identically(redis_url: str):
    async with bench(redis_url) as b:
        await b.accepted()
        await b.accepted()
        first = await b.scripts("claim", *CLAIM)
        assert await b.scripts("claim", *CLAIM) == first
        assert first
        assert (await b.order())["jobs"] == "1"


async def test_a_repeated_claim_of_an_attempt_that_is_over_brings_nothing(redis_url: str):
    async with bench(redis_url) as b:
        await b.accepted()
        await b.scripts("claim", *CLAIM)
        await b.expire_leases()
        await b.reap()
        assert await b.scripts("claim", *CLAIM) == []


async def test_a_repeated_finish_is_answered_identically(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.accepted()
        await b.accepted()
        call = finish_call(attempt, "succeeded", claim_next=True)
        first = await b.scripts("finish", *call)
        charged = (await b.order())["S:default"]
        assert await b.scripts("finish", *call) == first
        assert first[0] == b"succeeded"
        assert first[1]
        assert ((await b.order())["jobs"], (await b.order())["S:default"]) == ("1", charged)
        assert len(await b.finished()) == 1


async def test_finish_takes_the_next_job(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        waiting = await b.accepted()
        state, following = await b.replica().finish(attempt, DONE, claim_next=True)
        assert following is not None
        assert (state, following.id) == ("succeeded", waiting.id)
        assert await b.replica().renew([(following.id, following.token, None)]) == [True]
        assert (await b.replica().finish(following, DONE, claim_next=True))[1] is None


async def test_a_result_is_kept_until_it_is_recorded(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        done = Finish(outcome=Outcome.SUCCEEDED, seconds=2.0, result=b"\x00{}", result_type="image/png")
        await b.replica().finish(attempt, done, claim_next=False)
        job = await b.queue.get(attempt.id)
        assert job is not None
        assert (job.state, job.result, job.result_type, job.progress) == (
            "succeeded",
            b"\x00{}",
            "image/png",
            None,
        )
        assert await b.finished() == [(attempt.id, "0", "succeeded")]
        assert await b.redis.ttl(f"{PREFIX}job:{attempt.id}") == -1
        assert await b.redis.zcard(f"{PREFIX}leases") == 0


@pytest.mark.parametrize("how", ["wrong token", "reaped", "finished", "cancelled", "forgotten"])
async def test_an_attempt_that_is_over_writes_nothing(redis_url: str, how: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        if how == "wrong token":
            attempt = replace(attempt, token="0" * 16)
        elif how == "reaped":
            await b.expire_leases()
            await b.reap()
            assert (await b.replica("other").claim()) is not None
        elif how == "finished":
            await b.replica().finish(attempt, DONE, claim_next=False)
        elif how == "cancelled":
            await b.queue.cancel(attempt.id, BROKEN)
            await b.replica().finish(attempt, AGAIN, claim_next=False)  # what it has used is owed once
        else:
            await b.redis.flushall()
        replica, before = b.replica(), await b.snapshot()
        assert await replica.renew([(attempt.id, attempt.token, 0.5)]) == [False]
        assert await replica.first_byte(attempt, b"frame") is False
        for finish in (DONE, AGAIN, BACK):
            assert await replica.finish(attempt, finish, claim_next=False) == ("stale", None)
        after = await b.snapshot()
        assert {key: value for key, value in after.items() if ":op:" not in key} == {
            key: value for key, value in before.items() if ":op:" not in key
        }


async def test_a_stale_finish_may_still_take_the_next_job(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.queue.cancel(attempt.id, BROKEN)
        waiting = await b.accepted()
        state, following = await b.replica().finish(attempt, DONE, claim_next=True)
        assert following is not None
        assert (state, following.id) == ("stale", waiting.id)


async def test_an_attempt_that_failed_is_run_again_until_the_last(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running(max_attempts=2)
        state, again = await b.replica().finish(attempt, AGAIN, claim_next=True)
        assert again is not None
        assert (state, again.id, again.job.attempt) == ("queued", attempt.id, 2)
        assert again.token != attempt.token
        assert (await b.replica().finish(again, AGAIN, claim_next=True)) == ("failed", None)
        job = await b.queue.get(attempt.id)
        assert job is not None
        assert job.error == BROKEN


async def test_a_handed_back_job_has_no_attempt_spent_three_times(redis_url: str):
    async with bench(redis_url) as b:
        attempt: Attempt | None = await b.running(max_attempts=2)
        for expected in (1, 1, 1, 1, 2):
            assert attempt is not None
            assert attempt.job.attempt == expected
            state, attempt = await b.replica().finish(attempt, BACK, claim_next=True)
        assert (state, attempt) == ("failed", None)


async def test_a_job_that_ends_by_hand_backs_says_why(redis_url: str):
    async with bench(redis_url) as b:
        await b.queue.accept(
            replace((await b.running(max_attempts=1)).job.spec, id="x" * 36), "direct", reply_to="api"
        )
        attempt = await b.replica().claim()
        assert attempt is not None
        await b.set_field(attempt.id, handbacks=3)
        await b.replica().finish(attempt, BACK, claim_next=False)
        job = await b.queue.get(attempt.id)
        assert job is not None
        assert job.error is not None
        assert (job.state, job.error.code, job.error.status) == ("failed", "replica_stopped", 503)
        told = await last_reply(b, "api")
        assert (told.kind, orjson.loads(told.data)["code"]) == (FrameKind.ERROR, "replica_stopped")


@pytest.mark.parametrize("outcome", [AGAIN, BACK])
async def test_what_a_caller_has_begun_to_read_is_not_run_again(redis_url: str, outcome: Finish):
    async with bench(redis_url) as b:
        attempt = await b.running(max_attempts=5)
        assert await b.replica().first_byte(attempt, b"") is True
        assert await b.replica().finish(attempt, outcome, claim_next=True) == ("failed", None)
        job = await b.queue.get(attempt.id)
        assert job is not None
        assert job.error is not None
        assert job.error.code == ("engine_error" if outcome is AGAIN else "stream_broken")


async def test_only_the_end_answers_the_caller(redis_url: str):
    async with bench(redis_url) as b:
        asked = (await b.running(max_attempts=2)).job.spec
        await b.queue.accept(replace(asked, id="x" * 36), "direct", reply_to="api")
        attempt = await b.replica().claim()
        assert attempt is not None
        assert attempt.reply_to == "api"
        frame = frames.pack(attempt.id, FrameKind.ERROR, attempt.token, 0, b"{}")
        before = await b.redis.xlen(f"{PREFIX}reply:api")
        _, again = await b.replica().finish(attempt, replace(AGAIN, frame=frame), claim_next=True)
        assert again is not None
        assert await b.redis.xlen(f"{PREFIX}reply:api") == before
        await b.replica().finish(again, replace(AGAIN, frame=frame), claim_next=False)
        assert await b.redis.xlen(f"{PREFIX}reply:api") == before + 1


async def test_the_rate_is_learnt_from_success(redis_url: str):
    async with bench(redis_url) as b:
        first = await b.running(units=10.0)
        await b.replica().finish(first, Finish(outcome=Outcome.SUCCEEDED, seconds=5.0), claim_next=False)
        assert float((await b.order())["rate"]) == 0.5
        second = await b.running(units=10.0)
        assert float(await b.field(second.id, "est") or 0) == 5.0
        await b.replica().finish(second, Finish(outcome=Outcome.SUCCEEDED, seconds=25.0), claim_next=False)
        assert float((await b.order())["rate"]) == pytest.approx(0.95 * 0.5 + 0.05 * 2.5)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED])
async def test_the_rate_is_not_learnt_from_what_did_not_succeed(redis_url: str, outcome: Outcome):
    async with bench(redis_url) as b:
        attempt = await b.running(units=10.0)
        await b.replica().finish(
            attempt, Finish(outcome=outcome, seconds=5.0, failure=BROKEN), claim_next=False
        )
        assert "rate" not in await b.order()


async def test_a_claim_passes_over_jobs_whose_record_is_gone(redis_url: str):
    async with bench(redis_url) as b:
        lost = [await b.accepted(lane=Lane(lane), body=b"x" * 10) for lane in ("high", "medium", "low")]
        left = await b.accepted(lane=Lane.LOW, body=b"x" * 10)
        for asked in lost:
            await b.redis.delete(f"{PREFIX}job:{asked.id}")
        attempt = await b.replica().claim()
        assert attempt is not None
        assert attempt.id == left.id
        order = await b.order()
        assert [order[name] for name in ("jobs", "n:high", "n:medium", "n:low", "bytes")] == ["0"] * 5
        assert "q:default" not in order
        assert "est:default" not in order


async def test_lost_records_take_their_share_of_the_bytes_and_seconds(redis_url: str):
    async with bench(redis_url) as b:
        lost = [await b.accepted(lane=Lane.HIGH, body=b"x" * 10) for _ in range(2)]
        for _ in range(3):
            await b.accepted(body=b"x" * 10)
        est = float((await b.order())["est:default"])
        for asked in lost:
            await b.redis.delete(f"{PREFIX}job:{asked.id}")
        assert await b.replica().claim() is not None
        order = await b.order()
        counted = {name: order[name] for name in ("jobs", "n:high", "n:medium", "bytes", "q:default")}
        assert counted == {"jobs": "2", "n:high": "0", "n:medium": "2", "bytes": "20", "q:default": "2"}
        assert float(order["est:default"]) == pytest.approx(est * 2 / 5)


async def test_jobs_of_a_vanished_caller_are_not_run(redis_url: str):
    async with bench(redis_url) as b:
        specs = [(await b.running(kept=False)).job.spec]
        gone, kept = replace(specs[0], id="g" * 36), replace(specs[0], id="k" * 36, kept=True)
        for asked in (gone, kept):
            await b.queue.accept(asked, "direct", reply_to="api")
        await b.redis.delete(f"{PREFIX}reply:api")
        attempt = await b.replica().claim()
        assert attempt is not None
        assert attempt.id == kept.id
        job = await b.queue.get(gone.id)
        assert job is not None
        assert job.error is not None
        assert (job.state, job.error.code, job.attempt) == ("cancelled", "caller_gone", 0)
        assert (gone.id, "0", "cancelled") in await b.finished()
        assert (await b.order())["jobs"] == "0"


async def test_a_call_drops_a_bounded_number_of_jobs(redis_url: str):
    """Redis serves nobody else during a script; the claim goes on with further calls."""
    async with bench(redis_url) as b:
        for _ in range(150):
            asked = await b.accepted()
            await b.redis.delete(f"{PREFIX}job:{asked.id}")
        left = await b.accepted()
        assert await b.scripts("claim", *CLAIM) == [b"again"]
        assert int((await b.order())["jobs"]) == 51
        attempt = await b.replica().claim()
        assert attempt is not None
        assert attempt.id == left.id


async def test_jobs_of_a_caller_who_is_there_are_run(redis_url: str):
    async with bench(redis_url) as b:
        asked = (await b.running(kept=False)).job.spec
        await b.queue.accept(replace(asked, id="x" * 36), "direct", reply_to="api")
        assert await b.replica().claim() is not None


async def test_a_model_that_cannot_be_loaded_fails_what_waits(redis_url: str):
    failure = Failure(code="engine_load_failed", message="no memory", status=503)
    async with bench(redis_url) as b:
        waiting = [
            await b.accepted(lane=Lane(lane), tenant=t) for lane in ("high", "low") for t in ("a", "b")
        ]
        lost = await b.accepted(lane=Lane.HIGH, tenant="b")
        other = await b.accepted(model="other")
        await b.redis.delete(f"{PREFIX}job:{lost.id}")
        assert await b.replica().fail_waiting(failure) == 5
        assert {await b.state(asked.id) for asked in waiting} == {"failed"}
        job = await b.queue.get(waiting[0].id)
        assert job is not None
        assert job.error == failure
        assert await b.state(lost.id) is None
        assert await b.state(other.id) == "queued"
        order = await b.order()
        assert [order[name] for name in ("jobs", "n:high", "n:low", "bytes")] == ["0"] * 4
        assert await b.redis.exists(f"{PREFIX}tenants:demo") == 0


async def test_a_call_fails_a_bounded_number_of_jobs(redis_url: str):
    """Redis serves nobody else during a script; the replica calls until nothing is left."""
    async with bench(redis_url) as b:
        for tenant in ("a", "b", "c"):
            for lane in ("high", "low"):
                for _ in range(3):
                    await b.accepted(tenant=tenant, lane=Lane(lane))
        failed = [await b.replica().fail_waiting(BROKEN, limit=4) for _ in range(6)]
        assert failed == [4, 4, 4, 4, 2, 0]
        assert (await b.order())["jobs"] == "0"


async def test_a_job_with_an_empty_body_is_run(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running(body=b"")
        assert (await b.replica().finish(attempt, DONE, claim_next=False))[0] == "succeeded"
        assert (await b.order())["bytes"] == "0"
