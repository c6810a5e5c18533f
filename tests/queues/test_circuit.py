"""A model whose every replica rests, since its engines keep failing: who asks is told at once, or goes elsewhere."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from inferq import errors
from inferq.config.sections import Media
from inferq.job import Failure, JobSpec
from queues import capacity
from queues.attempts import Finish, Outcome
from queues.celery_app import make_app
from queues.intake import Intake
from queues.presence import Presence, ReplicaInfo, circuit_of
from queues.signals import Signals
from storage import migrate
from storage.artifacts import ArtifactStore
from storage.keys import KeyStore
from storage.ledger import Ledger
from storage.media import MediaStore
from storage.opening import Storage
from tests.queues.builders import DONE, PREFIX, Bench, bench, spec

URL = "sqlite:///inferq.db"
PLAIN = {"engine": "noop", "source": "none"}
CHAIN = {"demo": {**PLAIN, "fallback": ["second", "third"]}, "second": PLAIN, "third": PLAIN}
BODY = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}).encode()


@asynccontextmanager
async def intake(
    redis_url: str, home: Path, models: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Bench, Intake]]:
    await migrate.upgrade(URL, home)
    ledger = await Ledger.open(URL, home)
    artifacts = await ArtifactStore.open("artifacts", home)
    storage = Storage(ledger, KeyStore(ledger.database), artifacts, MediaStore(artifacts, Media()))
    async with bench(redis_url, models=models or {"demo": PLAIN}) as b:
        yield b, Intake(b.queue, storage, Signals(make_app(b.settings)), b.settings)
    await storage.close()


def info(name: str, circuit: str = "open", *, model: str = "demo", **more: Any) -> ReplicaInfo:
    values = {"device": "cpu:0", "node": "n", "pid": 1, "state": "ready", "since": 1.0, "slots": 1}
    return ReplicaInfo(**{**values, "circuit_left": 7.0, **more}, name=name, model=model, circuit=circuit)


async def shown(b: Bench, *replicas: ReplicaInfo) -> None:
    for each in replicas:
        await Presence(b.redis, PREFIX).show_replica(each)


def asked(**more: Any) -> JobSpec:
    return spec(body=BODY, **more)


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [
        ([], ("closed", 0.0)),
        ([info("a")], ("open", 7.0)),
        ([info("a"), info("b", circuit_left=3.0)], ("open", 3.0)),
        ([info("a"), info("b", "closed")], ("closed", 0.0)),
        ([info("a"), info("b", "closed", state="starting")], ("closed", 0.0)),
        ([info("a"), info("b", "closed", state="failed")], ("open", 7.0)),
        ([info("a", state="starting"), info("b", "half_open")], ("half_open", 0.0)),
    ],
)
def test_a_model_rests_when_each_replica_does(replicas: list[ReplicaInfo], expected: tuple[str, float]):
    assert circuit_of(replicas) == expected


async def test_a_call_is_answered_at_once_and_a_durable_job_waits(redis_url: str, tmp_path: Path):
    async with intake(redis_url, tmp_path) as (b, entrance):
        await shown(b, info("a", circuit_left=42.0), info("b"))
        with pytest.raises(errors.EngineUnavailable, match="'demo' keep failing") as refusal:
            await entrance.submit(asked())
        assert refusal.value.retry_after == 7.0
        assert await b.redis.keys(f"{PREFIX}job:*") == []
        assert (await entrance.submit(asked(durable=True))).position == 1


@pytest.mark.parametrize("other", [info("b", "half_open"), info("b", "closed")])
async def test_a_replica_that_tries_again_gets_jobs(redis_url: str, tmp_path: Path, other: ReplicaInfo):
    async with intake(redis_url, tmp_path) as (b, entrance):
        await shown(b, info("a"), other)
        call = asked()
        await entrance.submit(call)
        assert await b.state(call.id) == "queued"


async def test_an_old_reading_is_not_believed(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(capacity, "FRESH", 0.0)
    async with intake(redis_url, tmp_path) as (b, entrance):
        await shown(b, info("a"))
        with pytest.raises(errors.EngineUnavailable):
            await entrance.submit(asked())
        await shown(b, info("a", "closed"))
        await entrance.submit(asked())


@pytest.mark.parametrize("aside", [{"node": "drained"}, {"draining": True}])
async def test_one_that_is_to_take_nothing_is_no_help(redis_url: str, tmp_path: Path, aside: dict[str, Any]):
    async with intake(redis_url, tmp_path) as (b, entrance):
        await b.scripts("control", 0, "drain:node:drained", "drain")
        await shown(b, info("a"), info("b", "closed", **aside))
        with pytest.raises(errors.EngineUnavailable):
            await entrance.submit(asked())


async def test_a_call_goes_to_the_next_model_that_takes_jobs(redis_url: str, tmp_path: Path):
    async with intake(redis_url, tmp_path, CHAIN) as (b, entrance):
        await shown(b, info("a"), info("b", model="second"))
        call = asked(max_attempts=1)
        await entrance.submit(call)
        assert await b.replica().claim() is None
        attempt = await b.replica(model="third").claim()
        assert json.loads(attempt.job.spec.body)["model"] == "third"
        assert (attempt.id, attempt.job.spec.model, attempt.job.served_by) == (call.id, "demo", "third")
        await b.replica(model="third").finish(attempt, DONE, claim_next=False)
        assert (await b.queue.get(call.id)).served_by == "third"


async def test_one_that_was_given_away_at_once_goes_on_along_its_chain(redis_url: str, tmp_path: Path):
    """The chain is that of the model that was asked for, also where that one never had the job."""
    async with intake(redis_url, tmp_path, CHAIN) as (b, entrance):
        await shown(b, info("a"))
        await entrance.submit(asked(max_attempts=1))
        attempt = await b.replica(model="second").claim()
        crashed = Failure(code="engine_crashed", message="it broke off", status=502)
        ended = Finish(outcome=Outcome.RETRY, failure=crashed)
        assert (await b.replica(model="second").finish(attempt, ended, claim_next=False))[0] == "scheduled"
        (aside,) = await b.queue.put_aside(10)
        assert (aside.spec.model, aside.served_by) == ("demo", "second")


async def test_a_chain_that_rests_as_a_whole_is_told_of(redis_url: str, tmp_path: Path):
    async with intake(redis_url, tmp_path, CHAIN) as (b, entrance):
        await shown(b, info("a"), info("b", model="second"), info("c", model="third"))
        with pytest.raises(errors.EngineUnavailable, match="'demo'"):
            await entrance.submit(asked())
