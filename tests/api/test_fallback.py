"""Callers of a model with others behind it: who answered is told, and a fallback's answer is nobody else's."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferq.config import Settings
from inferq.fallback import Fallbacks
from inferq.job import Failure
from queues.attempts import Finish, Outcome
from queues.connection import connect
from queues.presence import NodeInfo, Presence, ReplicaInfo
from queues.scheduler import Scheduler
from storage import open_storage
from tests.api.stack import ANSWER, CHAT, CHUNKS, MODELS, Replica, Stack, serving, settings_for, until
from tests.media.files import wav

CRASHED = Failure(code="out_of_memory", message="too large", status=500)


@pytest.fixture
async def chained(tmp_path: Path, redis_url: str, template: Path) -> AsyncIterator[tuple[Stack, Settings]]:
    spare = {"engine": "text", "source": "models/spare", "type": "chat"}
    models = {**MODELS, "spare": spare, "demo-chat": {**MODELS["demo-chat"], "fallback": ["spare"]}}
    settings = settings_for(tmp_path / "home", redis_url, models=models)
    async with serving(settings, template) as stack:
        yield stack, settings


async def fall_back(stack: Stack, settings: Settings) -> Replica:
    """The first model has no memory for the job, the scheduler finds another; a replica of that one."""
    first, second = Replica(settings), Replica(settings, "spare")
    attempt = await first.claim()
    await first.attempts.finish(attempt, Finish(outcome=Outcome.FAILED, failure=CRASHED), claim_next=False)
    (aside,) = await until(lambda: stack.context.gateway.queue.put_aside(1))
    other = await Fallbacks(settings).reroute(aside.spec, "demo-chat")
    assert await stack.context.gateway.queue.reroute(aside, other) == ("queued", True)
    await first.close()
    return second


async def test_a_caller_is_told_who_answered(chained: tuple[Stack, Settings]) -> None:
    stack, settings = chained
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
    replica = await fall_back(stack, settings)
    await replica.result(await replica.claim())
    answer = await call
    assert (answer.status_code, answer.content) == (200, ANSWER)
    assert answer.headers["x-served-by"] == "spare"
    job = (await stack.get(f"/v1/jobs/{answer.headers['x-job-id']}")).json()
    assert (job["model"], job["served_by"]) == ("demo-chat", "spare")
    await replica.close()


async def test_a_stream_is_told_too(chained: tuple[Stack, Settings]) -> None:
    stack, settings = chained
    call = asyncio.create_task(stack.post("/v1/chat/completions", {**CHAT, "stream": True}))
    replica = await fall_back(stack, settings)
    await replica.stream(await replica.claim(), CHUNKS)
    answer = await call
    assert answer.headers["x-served-by"] == "spare"
    assert CHUNKS[1] in answer.content
    await replica.close()


async def rest(settings: Settings, model: str, *, node: str = "here", circuit: str = "open") -> None:
    """A replica of the model rests: all of them, when it is the only one."""
    client = connect(settings)
    where = {"name": f"{model}@cpu.{node}", "model": model, "device": "cpu:0", "node": node, "pid": 1}
    shown = ReplicaInfo(**where, state="ready", since=1.0, slots=1, circuit=circuit, circuit_left=33.3)
    await Presence(client, settings.queue.prefix).show_replica(shown)
    await client.aclose()


async def test_a_model_that_rests_is_not_waited_for(chained: tuple[Stack, Settings]) -> None:
    stack, settings = chained
    await rest(settings, "demo-chat")
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
    replica = Replica(settings, "spare")
    await replica.result(await replica.claim())
    assert (await call).headers["x-served-by"] == "spare"
    await replica.close()


async def test_without_another_model_callers_are_told_when_to_come_back(
    stack: Stack, settings: Settings
) -> None:
    await rest(settings, "demo-chat")
    answers = [
        await stack.post("/v1/chat/completions", {**CHAT, "stream": stream}) for stream in (False, True)
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        assert answer.headers["retry-after"] == "34"
    shown = (await stack.get("/v1/models/demo-chat")).json()["info"]
    assert (shown["state"], shown["circuit"]) == ("ready", "open")
    page = (await stack.get("/metrics")).text
    assert 'inferq_model_circuit_open{model="demo-chat"} 1.0' in page
    assert 'inferq_queue_rejections_total{model="demo-chat",reason="engine_unavailable"} 2.0' in page
    await stack.submit()


async def test_a_sound_is_measured_again_for_another_model(
    tmp_path: Path, redis_url: str, template: Path
) -> None:
    """Its length is not kept with the job, and decides who may hear it and what it costs."""
    ears = {"engine": "asr", "source": "models/ears", "type": "asr"}
    models = {
        "ears": {**ears, "fallback": ["short", "spare"]},
        "short": {**ears, "limits": {"seconds": 2}},
        "spare": ears,
    }
    settings = settings_for(tmp_path / "home", redis_url, models=models)
    async with serving(settings, template) as stack:
        asked = {"model": "ears", "body": {"file": base64.b64encode(wav(5.0)).decode()}}
        answer = await stack.post("/v1/jobs", asked)
        assert answer.status_code == 202, answer.text
        first, second = Replica(settings, "ears"), Replica(settings, "spare")
        attempt = await first.claim()
        failed = Finish(outcome=Outcome.FAILED, failure=CRASHED)
        await first.attempts.finish(attempt, failed, claim_next=False)
        stopping = asyncio.Event()
        running = asyncio.create_task(Scheduler(settings, await open_storage(settings)).run(stopping))
        again = await second.claim()
        assert (again.id, again.job.spec.units) == (attempt.id, attempt.job.spec.units)
        assert again.job.spec.units == pytest.approx(5.0, abs=0.1)
        stopping.set()
        await running
        await first.close()
        await second.close()


async def test_a_drained_replica_says_nothing_of_its_models_circuit(stack: Stack, settings: Settings) -> None:
    async def shown() -> tuple[str, bool]:
        model = (await stack.get("/v1/models/demo-chat")).json()
        page = (await stack.get("/metrics", "admin")).text
        return model["info"]["circuit"], 'inferq_model_circuit_open{model="demo-chat"} 1.0' in page

    await rest(settings, "demo-chat")
    await rest(settings, "demo-chat", node="well", circuit="closed")
    assert await shown() == ("closed", False)
    drain = {"kind": "node", "name": "well"}
    presence = Presence(stack.context.gateway.queue.redis, settings.queue.prefix)
    await presence.show_node(NodeInfo(name="well", pid=1, seen_at=1.0))
    assert (await stack.post("/v1/queues/pauses", drain, "admin")).status_code == 200
    assert await shown() == ("open", True)


async def test_whoever_is_served_by_the_model_itself_hears_nothing(chained: tuple[Stack, Settings]) -> None:
    stack, settings = chained
    replica = Replica(settings)
    answer, _ = await asyncio.gather(stack.post("/v1/chat/completions", CHAT), replica.answer_one())
    assert "x-served-by" not in answer.headers
    await replica.close()


async def test_a_clients_patience_is_not_measured_by_two_clocks(
    stack: Stack, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis lies on another host in production; here the clock of this process is set back against it."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    header = {"X_Stainless_Read_Timeout": "30"}
    answer, _ = await asyncio.gather(stack.post("/v1/chat/completions", CHAT, **header), replica.answer_one())
    assert answer.status_code == 200
    kept = await stack.post("/v1/jobs", {**CHAT, "expires_in": 30})
    attempt = await replica.claim()
    assert attempt.id == kept.json()["id"]
    left = (attempt.job.spec.expires_at or 0.0) - now()
    assert 0 < left < 600


async def test_a_job_need_not_start_when_its_client_has_hung_up(stack: Stack, replica: Replica) -> None:
    """OpenAI's clients say how long they wait; their streams are kept alive and have no such end."""
    header = {"X_Stainless_Read_Timeout": "5"}
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT, **header))
    attempt = await replica.claim()
    deadline = attempt.job.spec.expires_at
    assert deadline is not None
    assert 0 < deadline - attempt.job.spec.created_at < 10
    await replica.result(attempt)
    assert (await call).status_code == 200
    stream = asyncio.create_task(stack.post("/v1/chat/completions", {**CHAT, "stream": True}, **header))
    attempt = await replica.claim()
    assert attempt.job.spec.expires_at is None
    await replica.stream(attempt, CHUNKS)
    await stream
