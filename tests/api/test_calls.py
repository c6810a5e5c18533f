"""Calls that wait on their connection: whole bodies, streams, errors, callers that leave."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api import answers, sse
from inferq.config import Settings
from inferq.job import Failure, JobState
from queues.attempts import Attempt
from tests.api.stack import (
    ANSWER,
    CHAT,
    CHUNKS,
    DEADLINE,
    DONE,
    Replica,
    Stack,
    serving,
    settings_for,
    until,
)

STREAM = {**CHAT, "stream": True}


async def test_a_whole_answer_is_the_engines_bytes(stack: Stack, replica: Replica) -> None:
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
    attempt = await replica.answer_one()
    response = await call
    assert response.status_code == 200
    assert response.content == ANSWER
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-job-id"] == attempt.id
    assert response.headers["x-request-id"]


async def test_the_engine_gets_the_canonical_model_and_no_gateway_fields(
    stack: Stack, replica: Replica
) -> None:
    body = {
        **CHAT,
        "model": "gpt-4o-mini",
        "priority": "low",
        "service_tier": "priority",
        "metadata": {"who": "me"},
        "temperature": 0.5,
        "unknown_to_us": [1],
    }
    call = asyncio.create_task(stack.post("/v1/chat/completions", body))
    spec = (await replica.answer_one()).job.spec
    await call
    assert json.loads(spec.body) == {**CHAT, "temperature": 0.5, "unknown_to_us": [1]}
    assert spec.metadata == {"who": "me"}
    assert (spec.lane, spec.tenant, spec.source, spec.durable) == ("low", "user", "api", False)


LANES: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({}, {}, "medium"),
    ({"X-Priority": "9"}, {"priority": "low"}, "high"),
    ({}, {"priority": 1, "service_tier": "priority"}, "low"),
    ({}, {"service_tier": "flex"}, "low"),
    ({}, {"service_tier": "fast"}, "high"),
    ({}, {"service_tier": "of-tomorrow"}, "medium"),
]


async def test_the_lane_comes_from_header_then_priority_then_tier(stack: Stack, replica: Replica) -> None:
    for headers, body, lane in LANES:
        call = asyncio.create_task(stack.post("/v1/chat/completions", {**CHAT, **body}, **headers))
        attempt = await replica.answer_one()
        await call
        assert attempt.job.spec.lane == lane, (headers, body)


async def test_an_engines_error_keeps_its_status(stack: Stack, replica: Replica) -> None:
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
    attempt = await replica.claim()
    failure = Failure(code="context_length_exceeded", message="too long", status=400, param="messages")
    await replica.fail(attempt, failure)
    response = await call
    assert response.status_code == 400
    assert response.json() == {
        "error": {
            "message": "too long",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
    }
    assert response.headers["x-job-id"] == attempt.id


async def read_stream(stack: Stack, body: dict[str, Any], **headers: str) -> tuple[httpx2.Response, bytes]:
    async with stack.http.stream(
        "POST", "/v1/chat/completions", json=body, headers=stack.headers(**headers)
    ) as response:
        return response, await response.aread()


async def test_a_stream_is_the_engines_bytes(stack: Stack, replica: Replica) -> None:
    call = asyncio.create_task(read_stream(stack, STREAM))
    attempt = await replica.claim()
    assert attempt.job.spec.stream
    await replica.stream(attempt, [*CHUNKS, DONE])
    response, content = await call
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert content == b"".join([*CHUNKS, DONE])


async def test_an_error_before_the_first_chunk_has_a_status(stack: Stack, replica: Replica) -> None:
    call = asyncio.create_task(read_stream(stack, STREAM))
    await replica.fail(await replica.claim())
    response, content = await call
    assert response.status_code == 500
    assert json.loads(content)["error"]["code"] == "engine_error"


async def test_an_error_inside_a_stream_is_its_last_event(stack: Stack, replica: Replica) -> None:
    call = asyncio.create_task(read_stream(stack, STREAM))
    attempt = await replica.claim()
    await replica.chunks(attempt, CHUNKS)
    await replica.fail(attempt)
    _, content = await call
    assert content.startswith(b"".join(CHUNKS))
    last = content.removeprefix(b"".join(CHUNKS))
    assert last.startswith(b"data: ")
    assert last.endswith(b"\n\n")
    assert json.loads(last[6:])["error"] == {
        "message": "the engine failed",
        "type": "server_error",
        "param": None,
        "code": "engine_error",
    }
    assert b"[DONE]" not in content


async def test_a_stream_that_waits_says_where_it_stands(
    stack: Stack, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.05)
    async with (
        asyncio.timeout(DEADLINE),
        stack.http.stream("POST", "/v1/chat/completions", json=STREAM, headers=stack.headers()) as response,
    ):
        lines = response.aiter_lines()
        assert await anext(lines) == ": queued, position 1"
        attempt = await replica.claim()
        while await anext(lines) != ": running":
            pass
        await replica.stream(attempt, [*CHUNKS, DONE])
        rest = [line async for line in lines if line and not line.startswith(":")]
    assert rest == [chunk.decode().strip() for chunk in [*CHUNKS, DONE]]


async def state_of(stack: Stack, job_id: str) -> JobState:
    return (await stack.context.gateway.intake.find(job_id)).state


async def leave(call: "asyncio.Task[Any]") -> None:
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
async def test_a_caller_that_leaves_cancels_its_job(
    stack: Stack, replica: Replica, body: dict[str, Any]
) -> None:
    call = asyncio.create_task(read_stream(stack, body))
    attempt = await replica.claim()
    await leave(call)

    async def cancelled() -> bool:
        return await state_of(stack, attempt.id) is JobState.CANCELLED

    await until(cancelled)


async def test_a_caller_that_leaves_mid_stream_cancels_its_job(stack: Stack, replica: Replica) -> None:
    async def begin() -> Attempt:
        attempt = await replica.claim()
        await replica.chunks(attempt, CHUNKS)
        return attempt

    begun = asyncio.create_task(begin())
    async with stack.http.stream(
        "POST", "/v1/chat/completions", json=STREAM, headers=stack.headers()
    ) as response:
        assert await anext(response.aiter_raw())
    attempt = await begun

    async def cancelled() -> bool:
        return await state_of(stack, attempt.id) is JobState.CANCELLED

    await until(cancelled)


async def test_a_kept_job_goes_on_without_its_caller(stack: Stack, replica: Replica) -> None:
    headers = stack.headers(X_On_Disconnect="keep")
    call = asyncio.create_task(stack.http.post("/v1/chat/completions", json=CHAT, headers=headers))
    attempt = await replica.claim()
    await leave(call)

    async def noticed() -> bool:
        return "inferq_client_disconnects_total 1.0" in (await stack.get("/metrics")).text

    await until(noticed)
    await replica.result(attempt)
    response = await stack.get(f"/v1/jobs/{attempt.id}/result")
    assert (response.status_code, response.content) == (200, ANSWER)


async def test_a_client_that_reads_nothing_is_cut_off(
    stack: Stack, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "SLOW_CLIENT", 0.2)
    host, port = stack.url.removeprefix("http://").split(":")
    body = json.dumps(STREAM).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stack.keys['user']}\r\n"
    _, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    attempt = await replica.claim()
    # More than the buffers of both sockets hold.
    await replica.chunks(attempt, [b"data: " + b"x" * 500_000 + b"\n\n"] * 40)

    async def cancelled() -> bool:
        return await state_of(stack, attempt.id) is JobState.CANCELLED

    await until(cancelled)
    writer.close()


async def test_x_on_disconnect_must_be_known(stack: Stack) -> None:
    response = await stack.post("/v1/chat/completions", CHAT, X_On_Disconnect="explode")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "X-On-Disconnect"


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
async def test_a_wait_that_is_too_long_ends_with_504(
    tmp_path: Path, redis_url: str, template: Path, body: dict[str, Any]
) -> None:
    settings = settings_for(tmp_path / "home", redis_url, api={"wait_timeout": 0.2})
    async with serving(settings, template) as stack:
        response = await stack.post("/v1/chat/completions", body)
        assert response.status_code == 504
        assert response.headers["x-should-retry"] == "false"
        job_id = response.headers["x-job-id"]
        assert job_id in response.json()["error"]["message"]
        assert await state_of(stack, job_id) is JobState.CANCELLED


async def test_a_stream_whose_headers_are_out_times_out_with_an_event(
    tmp_path: Path, redis_url: str, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.05)
    settings = settings_for(tmp_path / "home", redis_url, api={"wait_timeout": 0.2})
    async with serving(settings, template) as stack:
        response, content = await read_stream(stack, STREAM)
        assert response.status_code == 200
        last = content.split(b"\n\n")[-2]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_timeout"


async def test_a_full_queue_is_refused_with_a_time_to_come_back(
    tmp_path: Path, redis_url: str, template: Path
) -> None:
    settings = settings_for(tmp_path / "home", redis_url, queue={"redis_url": redis_url, "max_queue_size": 1})
    async with serving(settings, template) as stack:
        await stack.submit()
        for path, body in (("/v1/chat/completions", CHAT), ("/v1/jobs", CHAT)):
            response = await stack.post(path, body)
            assert response.status_code == 429
            assert 1 <= int(response.headers["retry-after"]) <= 120
            assert response.json()["error"]["code"] == "queue_full"
            assert response.json()["error"]["type"] == "rate_limit_error"


async def test_without_redis_calls_are_refused_and_durable_jobs_accepted(
    tmp_path: Path, template: Path
) -> None:
    settings = settings_for(tmp_path / "home", f"unix://{tmp_path}/none.sock")
    async with serving(settings, template) as stack:
        response = await stack.post("/v1/chat/completions", CHAT)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "queue_unavailable"
        assert int(response.headers["retry-after"]) >= 1
        accepted = await stack.post("/v1/jobs", CHAT)
        assert accepted.status_code == 202
        assert (await stack.get(accepted.headers["location"])).json()["state"] == "queued"


async def test_prefer_respond_async_makes_a_durable_job(stack: Stack, replica: Replica) -> None:
    response = await stack.post(
        "/v1/chat/completions", {**CHAT, "priority": "low"}, Prefer="wait=1, respond-async"
    )
    assert response.status_code == 202
    job = response.json()
    assert (job["state"], job["durable"], job["lane"]) == ("queued", True, "low")
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (await replica.claim()).id == job["id"]


async def test_embeddings_and_completions_reach_their_endpoint(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    embedder = Replica(settings, "demo-embed")
    calls = {
        "embeddings": (embedder, {"model": "demo-embed", "input": ["a", "b"], "encoding_format": "base64"}),
        "completions": (replica, {"model": "demo-chat", "prompt": "once", "echo": True, "stop": ["."]}),
    }
    for endpoint, (worker, body) in calls.items():
        call = asyncio.create_task(stack.post(f"/openai/v1/{endpoint}", body))
        spec = (await worker.answer_one()).job.spec
        assert (await call).status_code == 200
        assert spec.endpoint == endpoint
        assert json.loads(spec.body) == body
    await embedder.close()
