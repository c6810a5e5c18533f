"""Jobs over HTTP: accepted, looked at, listed, changed, followed, fetched."""

import asyncio
import json
from typing import Any

import httpx2
import pytest

from api import sse
from api.job_events import render
from inferq.config import Settings
from inferq.job import new_job_id
from inferq.lanes import Lane
from storage.keys import Role
from tests.api.stack import ANSWER, BROKEN, CHAT, CHUNKS, DEADLINE, Replica, Stack, recorded, until

BODY = {"messages": CHAT["messages"]}


async def test_a_job_is_accepted_with_all_that_is_known(stack: Stack) -> None:
    response = await stack.post(
        "/v1/jobs", {"model": "gpt-4o-mini", "body": BODY, "priority": "high", "metadata": {"a": "b"}}
    )
    assert response.status_code == 202
    assert int(response.headers["retry-after"]) >= 1
    job = response.json()
    assert response.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert job == {
        **job,
        "object": "job",
        "model": "demo-chat",
        "endpoint": "chat/completions",
        "state": "queued",
        "lane": "high",
        "tenant": "user",
        "source": "api",
        "durable": True,
        "kept": True,
        "attempt": 0,
        "position": 1,
        "metadata": {"a": "b"},
        "result": None,
        "error": None,
    }
    later = (await stack.get(f"/v1/jobs/{job['id']}")).json()
    assert later == {**job, "queued_at": later["queued_at"]}


async def test_a_bare_body_is_a_job(stack: Stack, replica: Replica) -> None:
    job_id = await stack.submit(endpoint="/v1/chat/completions", priority="low", temperature=1)
    attempt = await replica.claim()
    assert attempt.id == job_id
    assert attempt.job.spec.lane == "low"
    assert json.loads(attempt.job.spec.body) == {**CHAT, "temperature": 1}


async def test_a_finished_job_shows_its_result(stack: Stack, replica: Replica, settings: Settings) -> None:
    job_id = await stack.submit()
    early = await stack.get(f"/v1/jobs/{job_id}/result")
    assert early.status_code == 409
    await replica.answer_one()
    await recorded(settings, stack.context)
    job = (await stack.get(f"/v1/jobs/{job_id}")).json()
    assert job["state"] == "succeeded"
    assert job["result"] == json.loads(ANSWER)
    assert job["finished_at"] >= job["started_at"] >= job["queued_at"]
    raw = await stack.get(f"/v1/jobs/{job_id}/result")
    assert (raw.content, raw.headers["content-type"]) == (ANSWER, "application/json")


async def test_a_result_that_is_an_artifact_is_fetched_like_any(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    artifact = await stack.context.storage.artifacts.put(b"picture", "image/png")
    job_id = await stack.submit()
    attempt = await replica.claim()
    await replica.finish_with_artifact(attempt, artifact.sha256)
    await recorded(settings, stack.context)
    assert (await stack.get(f"/v1/jobs/{job_id}")).json()["artifact"] == artifact.sha256
    raw = await stack.get(f"/v1/jobs/{job_id}/result")
    assert (raw.content, raw.headers["content-type"]) == (b"picture", "image/png")


async def test_a_failed_job_shows_why(stack: Stack, replica: Replica, settings: Settings) -> None:
    job_id = await stack.submit()
    await replica.fail(await replica.claim())
    await recorded(settings, stack.context)
    job = (await stack.get(f"/v1/jobs/{job_id}")).json()
    assert (job["state"], job["error"]) == ("failed", BROKEN.as_dict())
    raw = await stack.get(f"/v1/jobs/{job_id}/result")
    assert raw.status_code == 409
    assert BROKEN.message in raw.json()["error"]["message"]


async def test_users_see_only_their_tenants_jobs(stack: Stack) -> None:
    job_id = await stack.submit("user")
    for who, seen in (("user", 200), ("other", 404), ("readonly", 200), ("admin", 200)):
        assert (await stack.get(f"/v1/jobs/{job_id}", who)).status_code == seen, who
        listed = (await stack.get("/v1/jobs", who)).json()["data"]
        assert [job["id"] for job in listed] == ([job_id] if seen == 200 else []), who
    assert (await stack.post(f"/v1/jobs/{job_id}/cancel", who="other")).status_code == 404
    assert (await stack.post(f"/v1/jobs/{job_id}/cancel", who="readonly")).status_code == 403
    assert (await stack.get(f"/v1/jobs/{job_id}/events", "other")).status_code == 404
    assert (await stack.get(f"/v1/jobs/{job_id}/result", "other")).status_code == 404
    assert (await stack.get(f"/v1/jobs/{job_id}")).json()["state"] == "queued"


async def test_ids_that_are_none_are_unknown_jobs(stack: Stack) -> None:
    for job_id in ("nonsense", new_job_id(), new_job_id().upper()):
        response = await stack.get(f"/v1/jobs/{job_id}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "job_not_found"


async def test_a_list_is_filtered_and_paged(stack: Stack) -> None:
    ids = [await stack.submit(priority=lane) for lane in ("high", "low", "low")]
    page = (await stack.get("/v1/jobs?limit=2")).json()
    assert [job["id"] for job in page["data"]] == [ids[2], ids[1]]
    assert page["has_more"]
    assert "result" not in page["data"][0]
    rest = (await stack.get(f"/v1/jobs?limit=2&cursor={page['next_cursor']}")).json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"], rest["next_cursor"]) == (
        [ids[0]],
        False,
        None,
    )
    for query, found in (
        ("lane=low", ids[:0:-1]),
        ("state=queued&model=demo-chat&source=api", ids[::-1]),
        ("state=failed", []),
        ("model=other", []),
    ):
        assert [job["id"] for job in (await stack.get(f"/v1/jobs?{query}")).json()["data"]] == found, query


async def test_lists_tell_which_jobs_run(stack: Stack, replica: Replica) -> None:
    """SQL does not hear of a claim; Redis knows."""
    waiting, running = None, await stack.submit()
    attempt = await replica.claim()
    assert attempt.id == running
    waiting = await stack.submit()

    async def listed(query: str) -> dict[str, str]:
        return {job["id"]: job["state"] for job in (await stack.get(f"/v1/jobs?{query}")).json()["data"]}

    assert await listed("") == {running: "running", waiting: "queued"}
    assert await listed("state=running") == {running: "running"}
    assert await listed("state=queued") == {waiting: "queued"}
    assert await listed("state=running&model=other") == {}


async def test_lists_tell_of_a_run_what_the_job_itself_tells(stack: Stack, replica: Replica) -> None:
    job_id = await stack.submit()
    attempt = await replica.claim()
    await replica.attempts.renew([(attempt.id, attempt.token, 0.25)])
    alone = (await stack.get(f"/v1/jobs/{job_id}")).json()
    assert alone["started_at"] > 0
    for query in ("", "?state=running"):
        (listed,) = (await stack.get(f"/v1/jobs{query}")).json()["data"]
        for name in ("started_at", "attempt", "replica", "progress"):
            assert listed[name] == alone[name], name


async def test_a_wrong_filter_tells_the_legal_ones(stack: Stack) -> None:
    for query, param, legal in (
        ("state=done", "state", "succeeded"),
        ("lane=urgent", "lane", "medium"),
        ("limit=0", "limit", "200"),
        ("limit=x", "limit", "200"),
        ("stat=failed", "stat", "state"),
        ("cursor=nonsense", "cursor", ""),
        ("model=a%00b", "model", "NUL"),
    ):
        response = await stack.get(f"/v1/jobs?{query}")
        assert response.status_code == 400, query
        error = response.json()["error"]
        assert error["param"] == param, query
        assert legal in error["message"], query


async def test_cancel_is_idempotent(stack: Stack) -> None:
    job_id = await stack.submit()
    for _ in range(2):
        response = await stack.post(f"/v1/jobs/{job_id}/cancel")
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")


async def test_only_an_ended_job_is_retried(stack: Stack, replica: Replica, settings: Settings) -> None:
    job_id = await stack.submit()
    assert (await stack.post(f"/v1/jobs/{job_id}/retry")).status_code == 409
    await replica.fail(await replica.claim())
    await recorded(settings, stack.context)
    response = await stack.post(f"/v1/jobs/{job_id}/retry")
    assert response.status_code == 202
    job = response.json()
    assert (job["id"], job["state"], job["generation"], job["attempt"]) == (job_id, "queued", 1, 0)
    assert (await replica.claim()).id == job_id


async def test_a_requeue_changes_what_it_says(stack: Stack, replica: Replica, settings: Settings) -> None:
    job_id = await stack.submit()
    await replica.fail(await replica.claim())
    await recorded(settings, stack.context)
    edits = {
        "body": {"messages": [{"role": "user", "content": "Who are you?"}], "stream": True},
        "model": "gpt-4o-mini",
        "priority": "high",
        "metadata": {"edited": "yes"},
    }
    response = await stack.post(f"/v1/jobs/{job_id}/requeue", edits)
    assert response.status_code == 202
    spec = (await replica.claim()).job.spec
    assert json.loads(spec.body) == {"model": "demo-chat", **edits["body"]}
    assert (spec.lane, spec.metadata, spec.stream) == ("high", {"edited": "yes"}, True)


@pytest.mark.parametrize(
    ("way", "edits"), [("retry", None), ("requeue", {"body": BODY}), ("requeue", {"metadata": {"a": "b"}})]
)
async def test_a_key_of_a_low_lane_runs_nothing_again_above_it(
    stack: Stack, replica: Replica, settings: Settings, way: str, edits: dict[str, Any] | None
) -> None:

    _, stack.keys["low"] = await stack.context.storage.keys.create(
        "low", Role.USER, tenant="user", lane=Lane.LOW
    )
    job_id = await stack.submit(priority="high")
    attempt = await replica.claim()
    assert attempt.job.spec.lane == "high"
    await replica.fail(attempt)
    await recorded(settings, stack.context)
    response = await stack.post(f"/v1/jobs/{job_id}/{way}", edits, "low")
    assert response.status_code == 202, response.text
    assert (await replica.claim()).job.spec.lane == "low"


async def test_a_job_whose_body_was_not_kept_needs_one(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
    attempt = await replica.answer_one()
    await call
    await recorded(settings, stack.context)
    wrong: list[tuple[dict[str, Any], int]] = [
        ({"priority": "high"}, 409),
        ({"priority": "high", "body": None}, 409),
        ({"body": {}}, 400),
    ]
    for edits, status in wrong:
        response = await stack.post(f"/v1/jobs/{attempt.id}/requeue", edits)
        assert response.status_code == status, (edits, response.text)
    long = {"body": {**BODY, "max_tokens": 500, "stream": True}}
    assert (await stack.post(f"/v1/jobs/{attempt.id}/requeue", long)).status_code == 202
    spec = (await replica.claim()).job.spec
    assert (spec.stream, json.loads(spec.body)["stream"]) == (True, True)
    assert spec.units > 500


async def test_a_wrong_requeue_is_refused(stack: Stack) -> None:
    job_id = await stack.submit()
    wrong: list[tuple[dict[str, Any], str, int]] = [
        ({"colour": "red"}, "colour", 400),
        ({"body": {"messages": []}}, "messages", 400),
        ({"priority": "urgent"}, "priority", 400),
        ({"model": "demo-embed"}, "model", 400),
        ({"model": "none"}, "model", 404),
    ]
    for edits, param, status in wrong:
        response = await stack.post(f"/v1/jobs/{job_id}/requeue", edits)
        assert (response.status_code, response.json()["error"]["param"]) == (status, param), edits


async def events_of(stack: Stack, job_id: str, after: str | None = None) -> list[tuple[str, str, str]]:
    """(id, name, data) to the end of the stream."""
    headers = stack.headers(**({"Last_Event_ID": after} if after else {}))
    async with (
        asyncio.timeout(DEADLINE),
        stack.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response,
    ):
        assert response.status_code == 200
        return [(event.id, event.event, event.data) async for event in httpx2.EventSource(response)]


async def test_events_are_followed_to_the_end_and_resumed(
    stack: Stack, replica: Replica, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stack.submit()
    following = asyncio.create_task(events_of(stack, job_id))
    await replica.answer_one()
    seen = await following
    assert [(name, json.loads(data)) for _, name, data in seen] == [
        ("state", {"state": "running"}),
        ("done", {"state": "succeeded"}),
    ]
    assert await events_of(stack, job_id, after=seen[0][0]) == seen[1:]


async def test_events_of_an_ended_job_answer_at_once(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    job_id = await stack.submit()
    await replica.fail(await replica.claim())
    await recorded(settings, stack.context)
    (*_, last) = await events_of(stack, job_id)
    assert last[1:] == ("done", '{"state":"failed"}')
    assert await events_of(stack, job_id, after=last[0]) == [last]
    assert (await events_of(stack, job_id, after="nonsense"))[-1] == last


async def test_events_of_a_job_that_waits_keep_the_connection_alive(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.05)
    job_id = await stack.submit()
    async with (
        asyncio.timeout(DEADLINE),
        stack.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=stack.headers()) as response,
    ):
        assert await anext(response.aiter_lines()) == ": queued"


async def test_events_end_without_done_when_the_server_stops(stack: Stack) -> None:
    job_id = await stack.submit()
    following = asyncio.create_task(events_of(stack, job_id))
    await until(lambda: in_progress(stack))
    stack.context.stopping.set()
    assert await following == []


async def in_progress(stack: Stack) -> bool:
    """Whether a call is being answered besides this look at the numbers."""
    return "inferq_http_requests_in_progress 2.0" in (await stack.get("/metrics", None)).text


def test_chunks_are_shown_as_the_engines_data() -> None:
    shown = render("1-0", "chunk", CHUNKS[0] + CHUNKS[1])
    data = [chunk.removeprefix(b"data: ").strip() for chunk in CHUNKS]
    assert shown == b"id: 1-0\nevent: chunk\ndata: %b\ndata: %b\n\n" % (data[0], data[1])
    assert render("1-1", "progress", b"0.5") == b'id: 1-1\nevent: progress\ndata: {"progress":0.5}\n\n'


async def waits(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> tuple["asyncio.Task[Any]", list[str]]:
    """A call that waits for the end of its job, and what is asked about that job meanwhile."""
    looks: list[str] = []
    queue = stack.context.gateway.queue
    states = queue.states

    async def watched(ids: list[str]) -> list[str | None]:
        looks.extend(ids)
        return await states(ids)

    monkeypatch.setattr(queue, "states", watched)
    call = asyncio.create_task(stack.post("/v1/jobs", CHAT, prefer="wait=600"))

    async def polls() -> bool:
        return len(looks) > 2

    await until(polls)
    return call, looks


async def test_nobody_asks_on_for_a_caller_that_left(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    call, looks = await waits(stack, monkeypatch)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    async def silent() -> bool:
        before = len(looks)
        await asyncio.sleep(0.5)
        return len(looks) == before

    await until(silent)
    assert (await stack.get(f"/v1/jobs/{looks[0]}")).json()["state"] == "queued"


async def test_a_server_that_stops_waits_for_no_job(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    call, looks = await waits(stack, monkeypatch)
    stack.context.stopping.set()
    response = await asyncio.wait_for(call, 2)
    assert (response.status_code, response.json()["id"]) == (202, looks[0])
