"""A job that its model has failed goes to the next model of the chain, whichever way it failed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from inferq import errors
from inferq.config.sections import Media
from inferq.fallback import Reroute
from inferq.job import Failure, JobSpec, JobState
from queues.attempts import Attempt, Finish, Outcome
from queues.scheduler import Scheduler
from storage import migrate
from storage.artifacts import ArtifactStore
from storage.keys import KeyStore
from storage.ledger import Ledger
from storage.media import MediaStore
from storage.opening import Storage
from tests.queues.builders import CANCELLED, DONE, PREFIX, Bench, bench, eventually, spec
from tests.queues.test_scheduler import scheduler_of

URL = "sqlite:///inferq.db"
MODELS: dict[str, Any] = {
    "demo": {"engine": "noop", "source": "none", "fallback": ["spare"]},
    "spare": {"engine": "noop", "source": "none"},
}
CRASHED = Finish(
    outcome=Outcome.RETRY,
    failure=Failure(code="engine_crashed", message="it broke off", status=502),
    seconds=1.0,
)
REFUSED = Finish(outcome=Outcome.FAILED, failure=Failure(code="bad_request", message="no", status=400))
SPARE = Reroute("spare", b'{"model":"spare"}', 2.0)


async def crashed(b: Bench, **more: Any) -> Attempt:
    """A job whose last attempt has ended with its engine."""
    attempt = await b.running(max_attempts=1, **more)
    assert (await b.replica().finish(attempt, CRASHED, claim_next=False))[0] == "scheduled"
    return attempt


async def test_it_runs_on_the_other_model(redis_url: str):
    async with bench(redis_url, models=MODELS) as b:
        attempt = await crashed(b)
        (aside,) = await b.queue.put_aside(10)
        assert (aside.id, aside.state, aside.error.code) == (attempt.id, "scheduled", "engine_crashed")
        assert await b.finished() == []
        assert await b.queue.reroute(aside, SPARE) == ("queued", True)
        assert await b.replica().claim() is None
        again = await b.replica(model="spare").claim()
        assert (again.id, again.job.attempt, again.job.spec.body) == (attempt.id, 1, SPARE.body)
        assert (again.job.spec.model, again.job.served_by, again.job.error) == ("demo", "spare", None)
        await b.replica(model="spare").finish(again, DONE, claim_next=False)
        job = await b.queue.get(attempt.id)
        assert (job.state, job.spec.model, job.served_by) == ("succeeded", "demo", "spare")
        assert job.device_seconds == 2.0
        assert await b.queue.put_aside(10) == []


async def test_without_another_model_it_fails_as_it_had(redis_url: str):
    async with bench(redis_url, models=MODELS) as b:
        await b.redis.xadd(f"{PREFIX}reply:api", {"b": b""})
        asked = spec(max_attempts=1)
        await b.queue.accept(asked, "direct", reply_to="api")
        await b.replica().finish(await b.replica().claim(), CRASHED, claim_next=False)
        (aside,) = await b.queue.put_aside(10)
        assert await b.redis.xlen(f"{PREFIX}reply:api") == 1
        assert await b.queue.reroute(aside, None) == ("failed", False)
        job = await b.queue.get(asked.id)
        assert (job.state, job.error.code) == ("failed", "engine_crashed")
        told = await b.redis.xrevrange(f"{PREFIX}reply:api", count=1)
        assert b"engine_crashed" in told[0][1][b"b"]


async def test_a_job_that_was_given_away_is_given_away_once(redis_url: str):
    async with bench(redis_url, models=MODELS) as b:
        await crashed(b)
        (aside,) = await b.queue.put_aside(10)
        assert (await b.queue.reroute(aside, SPARE))[0] == "queued"
        assert (await b.queue.reroute(aside, None))[0] == "stale"
        assert (await b.order("spare"))["jobs"] == "1"


async def test_what_is_wrong_with_the_request_is_wrong_everywhere(redis_url: str):
    async with bench(redis_url, models=MODELS) as b:
        attempt = await b.running()
        assert (await b.replica().finish(attempt, REFUSED, claim_next=False))[0] == "failed"


async def test_a_model_without_a_chain_fails(redis_url: str):
    async with bench(redis_url, models=MODELS) as b:
        await b.accepted(model="spare", max_attempts=1)
        attempt = await b.replica(model="spare").claim()
        assert (await b.replica(model="spare").finish(attempt, CRASHED, claim_next=False))[0] == "failed"


async def test_a_stream_that_has_begun_is_not_begun_again(redis_url: str):
    async with bench(redis_url, models=MODELS) as b:
        attempt = await b.running(max_attempts=1)
        await b.replica().first_byte(attempt, b"")
        assert (await b.replica().finish(attempt, CRASHED, claim_next=False))[0] == "failed"


async def test_jobs_of_a_model_that_cannot_be_loaded_go_elsewhere(redis_url: str):
    async with bench(redis_url, models=MODELS) as b:
        waiting = {(await b.accepted()).id for _ in range(3)}
        failure = Failure(code="engine_load_failed", message="no weights", status=503)
        assert await b.replica().fail_waiting(failure) == 3
        assert {job.id for job in await b.queue.put_aside(10)} == waiting
        assert (await b.order())["jobs"] == "0"


async def test_a_job_that_lost_its_replica_in_each_attempt_goes_elsewhere(redis_url: str):
    async with bench(redis_url, models=MODELS) as b:
        attempt = await b.running(max_attempts=1)
        await b.expire_leases()
        await b.reap()
        assert [job.id for job in await b.queue.put_aside(10)] == [attempt.id]
        assert (await b.order())["run"] == "0"


@pytest.mark.parametrize("how", ["cancel", "expire"])
async def test_a_job_that_was_put_aside_can_still_end(redis_url: str, how: str):
    async with bench(redis_url, models=MODELS) as b:
        attempt = await crashed(b, expires_at=4e9)
        if how == "cancel":
            assert await b.queue.cancel(attempt.id, CANCELLED) == "scheduled"
        else:
            await b.deadlines_pass()
            assert await b.due() == {attempt.id: "expired"}
        assert await b.queue.put_aside(10) == []
        assert (await b.queue.get(attempt.id)).state is JobState(
            f"{how}led" if how == "cancel" else "expired"
        )


async def test_a_job_that_cannot_be_looked_at_holds_up_no_other(redis_url: str, tmp_path: Path):
    body = b'{"model":"demo","messages":[{"role":"user","content":"hello"}]}'
    async with bench(redis_url, models=MODELS) as b, scheduler_of(b.settings, tmp_path) as scheduler:
        gone, ended = await crashed(b), await crashed(b)
        odd, other = await crashed(b, body=b"no JSON"), await crashed(b, body=body)
        await b.redis.delete(f"{PREFIX}job:{gone.id}")
        await b.set_field(ended.id, state="failed")
        await scheduler._reroute()
        assert (await b.queue.get(odd.id)).error.code == "engine_crashed"
        assert [await b.state(each.id) for each in (odd, other)] == ["failed", "queued"]
        assert await b.redis.zcard(f"{PREFIX}reroute") == 0


async def test_a_job_whose_files_are_away_waits_for_them(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    body = b'{"model":"demo","messages":[{"role":"user","content":"hello"}]}'
    async with bench(redis_url, models=MODELS) as b, scheduler_of(b.settings, tmp_path) as scheduler:
        first, second = await crashed(b, body=body), await crashed(b, body=body)
        found = scheduler._fallbacks.reroute

        async def away_for_the_first(asked: JobSpec, serving: str) -> Reroute | None:
            if asked.id == first.id:
                raise errors.StoreUnavailable("the artifact store is away")
            return await found(asked, serving)

        monkeypatch.setattr(scheduler._fallbacks, "reroute", away_for_the_first)
        await scheduler._reroute()
        assert [await b.state(each.id) for each in (first, second)] == ["scheduled", "queued"]
        monkeypatch.undo()
        await scheduler._reroute()
        assert await b.state(first.id) == "queued"


async def test_the_scheduler_finds_the_other_model(redis_url: str, tmp_path: Path):
    await migrate.upgrade(URL, tmp_path)
    body = b'{"model":"demo","messages":[{"role":"user","content":"hello"}]}'
    async with bench(redis_url, models=MODELS) as b:
        artifacts = await ArtifactStore.open("artifacts", tmp_path)
        ledger = await Ledger.open(URL, tmp_path)
        storage = Storage(ledger, KeyStore(ledger.database), artifacts, MediaStore(artifacts, Media()))
        stopping = asyncio.Event()
        running = asyncio.create_task(Scheduler(b.settings, storage).run(stopping))
        attempt = await crashed(b, body=body)
        again = await eventually(b.replica(model="spare").claim)
        assert again.id == attempt.id
        assert json.loads(again.job.spec.body)["model"] == "spare"
        last = Finish(outcome=Outcome.RETRY, failure=CRASHED.failure)
        while (await b.replica(model="spare").finish(again, last, claim_next=False))[0] == "queued":
            again = await b.replica(model="spare").claim()

        async def failed() -> bool:
            return await b.state(attempt.id) == "failed"

        await eventually(failed)
        stopping.set()
        await asyncio.wait_for(running, 20)
        await ledger.close()
