"""`Idempotency-Key`: the same call made twice makes one job, and both get its answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from api.app import create_app
from api.server import opened
from inferq import errors
from inferq.config import Settings
from inferq.job import Failure, Job
from queues.connection import connect
from storage.idempotency import Claim, Claims
from tests.api.stack import (
    ANSWER,
    CHAT,
    CHUNKS,
    DEADLINE,
    DONE,
    Replica,
    Stack,
    recorded,
    serving,
    settings_for,
    until,
)

KEYED = {"idempotency_key": "one"}
STREAM = {**CHAT, "stream": True}
CHATS = "/v1/chat/completions"
JOB = {"model": "demo-chat", "body": {"messages": CHAT["messages"]}}


async def jobs_made(stack: Stack) -> int:
    page = (await stack.get("/v1/jobs", "admin")).json()
    return len(page["data"])


async def test_a_durable_job_is_made_once(stack: Stack, replica: Replica, settings: Settings) -> None:
    first = await stack.post("/v1/jobs", JOB, **KEYED)
    again = await stack.post("/v1/jobs", JOB, **KEYED)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"] == again.headers["x-job-id"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    await replica.answer_one()
    await recorded(settings, stack.context)
    ended = await stack.post("/v1/jobs", JOB, **KEYED)
    assert (ended.status_code, ended.json()["state"]) == (202, "succeeded")
    waited = await stack.post("/v1/jobs", JOB, **KEYED, prefer="wait=5")
    assert (waited.status_code, waited.json()["id"]) == (200, first.json()["id"])
    assert await jobs_made(stack) == 1


async def test_simultaneous_calls_make_one_durable_job(stack: Stack) -> None:
    answers = await asyncio.gather(*(stack.post("/v1/jobs", JOB, **KEYED) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await jobs_made(stack) == 1


async def test_a_key_belongs_to_its_tenant_and_its_request(stack: Stack) -> None:
    first = await stack.post("/v1/jobs", JOB, **KEYED)
    other = await stack.post("/v1/jobs", JOB, "other", **KEYED)
    assert other.json()["id"] != first.json()["id"]
    for path, body in (("/v1/jobs", {**JOB, "metadata": {"a": 1}}), (CHATS, CHAT)):
        refused = await stack.post(path, body, **KEYED)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "idempotency_mismatch")
        assert refused.json()["error"]["param"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "\xe9"])
async def test_a_key_that_is_none_is_refused(stack: Stack, key: str) -> None:
    headers = {**stack.headers(), "Idempotency-Key": key.encode("latin-1")}
    answer = await stack.http.post("/v1/jobs", json=JOB, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_a_refused_call_does_not_burn_the_key(stack: Stack) -> None:
    wrong = await stack.post("/v1/jobs", {**JOB, "priority": "urgent"}, **KEYED)
    assert wrong.status_code == 400
    assert (await stack.post("/v1/jobs", JOB, **KEYED)).status_code == 202


async def test_a_full_queue_does_not_burn_the_key(
    tmp_path: Path, redis_url: str, template: Path, replica: Replica
) -> None:
    settings = settings_for(tmp_path / "full", redis_url, queue={"max_queue_size": 1})
    async with serving(settings, template) as stack:
        await stack.submit()
        assert (await stack.post(CHATS, CHAT, **KEYED)).status_code == 429
        await replica.answer_one()
        other = {**CHAT, "messages": [{"role": "user", "content": "Something else."}]}
        call = asyncio.create_task(stack.post(CHATS, other, **KEYED))
        await replica.answer_one()
        assert (await call).status_code == 200


async def test_a_repeat_waits_for_the_same_answer(stack: Stack, replica: Replica) -> None:
    first = asyncio.create_task(stack.post(CHATS, CHAT, **KEYED))
    attempt = await replica.claim()
    second = asyncio.create_task(stack.post(CHATS, CHAT, **KEYED))
    third = await stack.post(CHATS, CHAT, **KEYED, prefer="respond-async")
    assert (third.status_code, third.json()["id"]) == (202, attempt.id)
    await replica.result(attempt)
    for answer in (await first, await second):
        assert (answer.status_code, answer.content, answer.headers["x-job-id"]) == (200, ANSWER, attempt.id)
    assert await replica.attempts.claim() is None


async def test_simultaneous_calls_all_get_the_answer(stack: Stack, replica: Replica) -> None:
    calls = [asyncio.create_task(stack.post(CHATS, CHAT, **KEYED)) for _ in range(8)]
    await replica.answer_one()
    answers = await asyncio.gather(*calls)
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, ANSWER)}
    assert len({answer.headers["x-job-id"] for answer in answers}) == 1


@pytest.mark.parametrize("forgotten", [False, True])
async def test_an_answer_is_given_again(
    stack: Stack, replica: Replica, settings: Settings, forgotten: bool
) -> None:
    call = asyncio.create_task(stack.post(CHATS, CHAT, **KEYED))
    attempt = await replica.answer_one()
    await call
    if forgotten:
        await recorded(settings, stack.context)
        await forget(settings, attempt.id)
    again = await stack.post(CHATS, CHAT, **KEYED)
    assert (again.status_code, again.content) == (200, ANSWER)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-job-id"] == attempt.id
    assert again.headers["content-type"] == "application/json"


async def forget(settings: Settings, job_id: str) -> None:
    """What Redis does by itself some minutes after a job has ended."""
    client = connect(settings)
    await client.delete(f"inferq:job:{job_id}", f"inferq:events:{job_id}")
    await client.aclose()


async def test_a_failure_is_given_again(stack: Stack, replica: Replica) -> None:
    call = asyncio.create_task(stack.post(CHATS, CHAT, **KEYED))
    await replica.fail(await replica.claim())
    first, again = await call, await stack.post(CHATS, CHAT, **KEYED)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again.headers["idempotent-replayed"] == "true"


async def test_what_the_system_lost_runs_again(stack: Stack, replica: Replica) -> None:
    call = asyncio.create_task(stack.post(CHATS, CHAT, **KEYED))
    lost = await replica.claim()
    await replica.fail(lost, Failure(code="engine_load_failed", message="no memory", status=503))
    assert (await call).status_code == 503
    call = asyncio.create_task(stack.post(CHATS, CHAT, **KEYED))
    attempt = await replica.answer_one()
    assert attempt.id != lost.id
    assert (await call).content == ANSWER
    assert (await stack.post(CHATS, CHAT, **KEYED)).headers["x-job-id"] == attempt.id


async def test_a_key_whose_job_never_came_to_be_makes_it(
    stack: Stack, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The api was killed between the two writes."""
    ids: list[str] = []
    take = Claims.take

    async def dies(claims: Claims, claim: Claim) -> str:
        ids.append(await take(claims, claim))
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Claims, "take", dies)
        assert (await stack.post(CHATS, CHAT, **KEYED)).status_code == 500
    call = asyncio.create_task(stack.post(CHATS, CHAT, **KEYED))
    assert (await replica.answer_one()).id == ids[0]
    assert (await call).content == ANSWER


async def test_two_gateways_make_one_job(stack: Stack, replica: Replica, settings: Settings) -> None:
    """The second looks for the job in the moment in which the first has the key and not yet the job."""
    async with opened(settings) as context:
        find, looked = context.gateway.intake.find, []

        async def too_early(job_id: str) -> Job:
            looked.append(job_id)
            if len(looked) == 1:
                raise errors.JobNotFound("not yet")
            return await find(job_id)

        context.gateway.intake.find = too_early  # type: ignore[method-assign]
        first = asyncio.create_task(stack.post(CHATS, CHAT, **KEYED))
        attempt = await replica.claim()
        transport = httpx2.ASGITransport(create_app(context))
        async with httpx2.AsyncClient(transport=transport, base_url=stack.url, timeout=DEADLINE) as http:
            second = asyncio.create_task(http.post(CHATS, json=CHAT, headers=stack.headers(**KEYED)))
            await until(lambda: seen_twice(looked))
            await replica.result(attempt)
            assert ((await second).content, (await first).content) == (ANSWER, ANSWER)


async def seen_twice(looked: list[str]) -> bool:
    return len(looked) > 1


async def test_a_call_with_a_key_outlives_its_caller(stack: Stack, replica: Replica) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        await stack.http.post(CHATS, json=CHAT, headers=stack.headers(**KEYED), timeout=0.3)
    await replica.answer_one()
    assert (await stack.post(CHATS, CHAT, **KEYED)).content == ANSWER


async def test_a_stream_is_followed_from_its_beginning(stack: Stack, replica: Replica) -> None:
    first = asyncio.create_task(stack.post(CHATS, STREAM, **KEYED))
    attempt = await replica.claim()
    await kept(replica, attempt, CHUNKS)
    async with stack.http.stream("POST", CHATS, json=STREAM, headers=stack.headers(**KEYED)) as second:
        parts = second.aiter_bytes()
        came = await anext(parts)
        await replica.writer.keep(attempt, DONE)
        replica.writer.chunk(attempt, len(CHUNKS), DONE)
        await replica.writer.drain(attempt)
        await replica.end(attempt, len(CHUNKS) + 1)
        came += b"".join([part async for part in parts])
    assert second.headers["content-type"].startswith("text/event-stream")
    assert came == b"".join([*CHUNKS, DONE]) == (await first).content
    again = await stack.post(CHATS, STREAM, **KEYED)
    assert (again.content, again.headers["idempotent-replayed"]) == (came, "true")


async def kept(replica: Replica, attempt: Any, chunks: list[bytes]) -> None:
    """As a replica does it for jobs that are kept."""
    for chunk in chunks:
        await replica.writer.keep(attempt, chunk)
    await replica.chunks(attempt, chunks)


async def test_a_stream_that_redis_forgot_is_told_in_one_piece(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    call = asyncio.create_task(stack.post(CHATS, STREAM, **KEYED))
    attempt = await replica.claim()
    await replica.result(attempt)
    await call
    await recorded(settings, stack.context)
    await forget(settings, attempt.id)
    again = await stack.post(CHATS, STREAM, **KEYED)
    assert again.headers["content-type"].startswith("text/event-stream")
    assert again.headers["idempotent-replayed"] == "true"
    lines = again.text.split("\n\n")
    assert '"delta":{"role":"assistant","content":"Hello!"}' in lines[0].replace('": ', '":').replace(
        ", ", ","
    )
    assert lines[-2:] == ["data: [DONE]", ""]


async def test_a_retry_is_done_once(stack: Stack, replica: Replica, settings: Settings) -> None:
    job_id = await stack.submit()
    for key in ("a", "b"):
        await replica.fail(await replica.claim())
        await recorded(settings, stack.context)
        first = await stack.post(f"/v1/jobs/{job_id}/retry", idempotency_key=key)
        assert first.status_code == 202, first.text
        assert (await stack.post(f"/v1/jobs/{job_id}/retry", idempotency_key=key)).status_code == 202
        assert (await stack.post(f"/v1/jobs/{job_id}/retry")).status_code == 409
    assert (await stack.get(f"/v1/jobs/{job_id}")).json()["generation"] == 2
    await replica.fail(await replica.claim())
    await recorded(settings, stack.context)
    late = await stack.post(f"/v1/jobs/{job_id}/retry", idempotency_key="a")
    assert (late.status_code, late.json()["state"]) == (202, "failed")


async def test_a_form_counts_by_its_parts(tmp_path: Path, redis_url: str, template: Path) -> None:
    """A client that sends a form again chooses another boundary."""
    film = {"engine": "film", "source": "models/film", "type": "video"}
    settings = settings_for(tmp_path / "film", redis_url, models={"demo-film": film})
    async with serving(settings, template) as stack:

        async def send(boundary: str, prompt: str) -> httpx2.Response:
            headers = {**stack.headers(**KEYED), "Content-Type": f"multipart/form-data; boundary={boundary}"}
            return await stack.http.post("/v1/videos", content=form(boundary, prompt), headers=headers)

        first, again = await send("aaa", "a cat"), await send("bbbbbb", "a cat")
        assert first.status_code == 200, first.text
        assert again.json()["id"] == first.json()["id"]
        assert (await send("aaa", "a dog")).status_code == 422


def form(boundary: str, prompt: str) -> bytes:
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    fields = {"model": "demo-film", "prompt": prompt}
    return ("".join(part % each for each in fields.items()) + f"--{boundary}--\r\n").encode()


@contextlib.asynccontextmanager
async def cutting(url: str, heads: list[bytes], cut: asyncio.Event) -> AsyncIterator[str]:
    """A way to the server that hangs up on the first request when it is told; later ones get their answers."""
    target = httpx2.URL(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target.host, target.port)
        heads.append(await reader.read(65536))
        back.write(heads[-1])
        if len(heads) == 1:
            await cut.wait()
        else:
            writer.write(await there.read(65536))
        back.close()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def test_openais_own_retries_attach(stack: Stack, replica: Replica) -> None:
    heads: list[bytes] = []
    cut = asyncio.Event()
    async with (
        cutting(stack.url, heads, cut) as url,
        openai.AsyncOpenAI(
            api_key=stack.keys["user"], base_url=f"{url}/v1", max_retries=2, timeout=DEADLINE
        ) as client,
    ):
        call = asyncio.create_task(
            client.chat.completions.create(
                model="demo-chat", messages=CHAT["messages"], extra_headers={"Idempotency-Key": "mine"}
            )
        )
        attempt = await replica.claim()
        cut.set()
        await until(lambda: sent_again(heads))
        await replica.result(attempt)
        assert (await call).choices[0].message.content == "Hello!"
    assert len(heads) == 2
    assert b"idempotency-key: mine" in heads[1].lower()


async def sent_again(heads: list[bytes]) -> bool:
    return len(heads) > 1


async def test_a_group_is_made_once(stack: Stack) -> None:
    group = {"jobs": [JOB, JOB]}
    made = await asyncio.gather(*(stack.post("/v1/groups", group, **KEYED) for _ in range(5)))
    assert {answer.status_code for answer in made} == {202}
    assert len({answer.json()["id"] for answer in made}) == 1
    again = await stack.post("/v1/groups", group, **KEYED)
    assert (again.json()["id"], again.headers["idempotent-replayed"]) == (made[0].json()["id"], "true")
    assert await jobs_made(stack) == 2
    other = await stack.post("/v1/groups", {"jobs": [JOB]}, **KEYED)
    assert other.status_code == 422


async def test_a_key_stands_for_a_group_or_a_job_and_never_for_both(stack: Stack) -> None:
    group = {"jobs": [JOB]}
    made = await stack.post("/v1/groups", group, **KEYED)
    for path, body in (("/v1/jobs", JOB), (CHATS, CHAT)):
        assert (await stack.post(path, body, **KEYED)).status_code == 422
    again = await stack.post("/v1/groups", group, **KEYED)
    assert (again.status_code, again.json()["id"]) == (202, made.json()["id"])
    await stack.post("/v1/jobs", JOB, idempotency_key="two")
    assert (await stack.post("/v1/groups", group, idempotency_key="two")).status_code == 422


async def test_a_key_whose_job_never_came_to_be_makes_a_group(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(claims: Claims, claim: Claim) -> str:
        await take(claims, claim)
        raise RuntimeError("killed")

    take = Claims.take
    with monkeypatch.context() as patch:
        patch.setattr(Claims, "take", dies)
        assert (await stack.post(CHATS, CHAT, **KEYED)).status_code == 500
    made = await stack.post("/v1/groups", {"jobs": [JOB]}, **KEYED)
    assert made.status_code == 202, made.text
    again = await stack.post("/v1/groups", {"jobs": [JOB]}, **KEYED)
    assert again.json()["id"] == made.json()["id"]


async def test_the_model_of_a_proxys_path_is_part_of_the_request(stack: Stack) -> None:
    first = await stack.post("/openai/demo-chat/v1/jobs", JOB, **KEYED)
    assert first.status_code == 202
    for path in ("/openai/demo-chat:512/v1/jobs", "/openai/gpt-4o-mini/v1/jobs", "/v1/jobs"):
        assert (await stack.post(path, JOB, **KEYED)).status_code == 422
    again = await stack.post("/openai/demo-chat/v1/jobs", JOB, **KEYED)
    assert again.json()["id"] == first.json()["id"]


async def test_a_job_that_waits_for_its_time_is_made_once(stack: Stack) -> None:
    later = {**JOB, "run_at": "2030-01-01T00:00:00Z"}
    made = await asyncio.gather(*(stack.post("/v1/jobs", later, **KEYED) for _ in range(5)))
    assert {(answer.status_code, answer.json()["state"]) for answer in made} == {(202, "scheduled")}
    assert await jobs_made(stack) == 1
