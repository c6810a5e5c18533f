"""Jobs over HTTP that wait for a time or for others: accepted, shown, filled in, refused."""

import base64
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from inferq.config import Settings
from inferq.job import new_job_id
from queues import filling
from tests.api.releasing import released
from tests.api.stack import (
    ANSWER,
    BROKEN,
    CHAT,
    DEADLINE,
    Replica,
    Stack,
    recorded,
    serving,
    settings_for,
    until,
)

BODY = {"messages": CHAT["messages"]}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def ask(text: Any, **more: Any) -> dict[str, Any]:
    return {"model": "demo-chat", "body": {"messages": [{"role": "user", "content": text}]}, **more}


async def job(stack: Stack, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await stack.get(f"/v1/jobs/{job_id}")).json()
    return found


async def accepted(stack: Stack, envelope: dict[str, Any], who: str = "user") -> str:
    response = await stack.post("/v1/jobs", envelope, who)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def test_a_job_with_a_time_is_scheduled_and_shown_so(stack: Stack) -> None:
    due = int(time.time()) + 3600
    response = await stack.post(
        "/v1/jobs", {"model": "demo-chat", "body": BODY, "run_at": due, "expires_in": "2h"}
    )
    assert response.status_code == 202
    made = response.json()
    assert (made["state"], made["due_at"], made["queued_at"], made["position"]) == (
        "scheduled",
        due,
        None,
        None,
    )
    assert 7100 < made["expires_at"] - time.time() <= 7200
    assert await job(stack, made["id"]) == made
    listed = (await stack.get("/v1/jobs?state=scheduled")).json()["data"]
    assert [each["id"] for each in listed] == [made["id"]]
    cancelled = await stack.post(f"/v1/jobs/{made['id']}/cancel")
    assert cancelled.json()["state"] == "cancelled"
    again = (await stack.post(f"/v1/jobs/{made['id']}/retry")).json()
    assert (again["state"], again["due_at"], again["expires_at"]) == ("queued", None, None)


async def test_a_bare_body_takes_a_time_beside_it(stack: Stack, replica: Replica) -> None:
    envelope = {**CHAT, "run_at": "2001-01-01T00:00:00Z", "expires_in": 60}
    job_id = await accepted(stack, envelope)
    attempt = await replica.claim()
    assert attempt.id == job_id
    assert json.loads(attempt.job.spec.body) == CHAT


async def test_a_time_is_not_for_calls(stack: Stack) -> None:
    scheduled = await stack.post("/v1/jobs", {**CHAT, "run_at": "2001-01-01T00:00:00"})
    assert (scheduled.status_code, scheduled.json()["error"]["param"]) == (400, "run_at")
    assert "time zone" in scheduled.json()["error"]["message"]


async def test_scheduled_jobs_are_bounded(template: Path, tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(
        tmp_path / "home", redis_url, queue={"redis_url": redis_url, "max_scheduled_jobs": 1}
    )
    async with serving(settings, template) as stack:
        later = {**CHAT, "run_at": time.time() + 60}
        await accepted(stack, later)
        refused = await stack.post("/v1/jobs", later)
        assert refused.status_code == 429
        assert "max_scheduled_jobs" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 0
        await accepted(stack, later, "other")
        await accepted(stack, CHAT)


async def test_scheduled_jobs_and_groups_draw_on_the_rates(
    template: Path, tmp_path: Path, redis_url: str
) -> None:
    tenants = {"*": {"requests_per_minute": 2}, "other": {"tokens_per_minute": 300}}
    settings = settings_for(tmp_path / "home", redis_url, tenants=tenants)
    later = {**CHAT, "run_at": time.time() + 60}
    async with serving(settings, template) as stack:
        await accepted(stack, later)
        assert (await stack.post("/v1/groups", {"jobs": [later] * 5})).status_code == 202
        refused = await stack.post("/v1/jobs", later)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        many = {"jobs": [{**later, "max_tokens": 200}] * 2}
        assert (await stack.post("/v1/groups", many, "other")).status_code == 202
        assert (await stack.post("/v1/groups", many, "other")).status_code == 429
        assert len((await stack.get("/v1/groups", "other")).json()["data"]) == 1


async def test_what_is_filled_in_counts_for_the_rates(template: Path, tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(
        tmp_path / "home", redis_url, tenants={"user": {"requests_per_minute": 100, "tokens_per_minute": 60}}
    )
    replica = Replica(settings)
    async with serving(settings, template) as stack:
        first = await accepted(stack, {**CHAT, "max_tokens": 1})
        body = {"messages": [{"role": "user", "content": "{{jobs.0.text}}"}], "max_tokens": 1}
        for _ in range(2):
            await accepted(stack, {"model": "demo-chat", "body": body, "depends_on": [first]})
        await replica.answer_one(json.dumps({"text": "word " * 150}).encode())
        await recorded(settings, stack.context)
        await released(settings, stack.context)
        assert {(await replica.claim()).job.state for _ in range(2)} == {"running"}
        refused = await stack.post("/v1/jobs", {**CHAT, "max_tokens": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "tokens per minute" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 60
    await replica.close()


async def test_jobs_get_the_configured_end(template: Path, tmp_path: Path, redis_url: str) -> None:
    settings = settings_for(
        tmp_path / "home", redis_url, queue={"redis_url": redis_url, "queue_timeout": "1h"}
    )
    async with serving(settings, template) as stack:
        made = await job(stack, await accepted(stack, CHAT))
        assert 3500 < made["expires_at"] - time.time() <= 3600
        own = await job(stack, await accepted(stack, {**CHAT, "expires_in": 60}))
        assert own["expires_at"] - time.time() <= 60


async def test_a_result_becomes_part_of_the_next_request(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    first = await accepted(stack, CHAT)
    second = await accepted(stack, ask("{{jobs.0.choices.0.message.content}}", depends_on=[first]))
    third = await accepted(
        stack, ask("{{jobs." + second + ".choices.0.message.content}}", depends_on=[first, second])
    )
    assert [(await job(stack, each))["state"] for each in (second, third)] == ["scheduled", "scheduled"]
    await released(settings, stack.context)
    for job_id, text in ((first, "Say hello."), (second, "Hello!"), (third, "Hello!")):
        attempt = await replica.claim()
        assert attempt.id == job_id
        assert json.loads(attempt.job.spec.body)["messages"][-1]["content"] == text
        await replica.result(attempt, ANSWER)
        await recorded(settings, stack.context)
        await released(settings, stack.context)
    done = await job(stack, third)
    assert (done["state"], done["depends_on"]) == ("succeeded", [first, second])
    assert done["due_at"] >= (await job(stack, second))["finished_at"]


async def test_a_result_is_not_read_as_a_place_again(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    first = await accepted(stack, CHAT)
    second = await accepted(stack, ask("{{jobs.0.text}}", depends_on=[first]))
    await replica.answer_one(json.dumps({"text": "{{jobs.0}}"}).encode())
    await recorded(settings, stack.context)
    await released(settings, stack.context)
    attempt = await replica.claim()
    assert attempt.id == second
    assert json.loads(attempt.job.spec.body)["messages"][0]["content"] == "{{jobs.0}}"


async def test_what_is_filled_in_meets_the_limits_of_a_new_request(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    first = await accepted(stack, CHAT)
    long = await accepted(stack, ask("{{jobs.0.text}}", depends_on=[first]))
    number = await accepted(stack, ask("{{jobs.0.n}}", depends_on=[first]))
    missing = await accepted(stack, ask("{{jobs.0.texts}}", depends_on=[first]))
    after = await accepted(stack, ask("x", depends_on=[missing]))
    await replica.answer_one(json.dumps({"text": "word " * 5000, "n": 3}).encode())
    await recorded(settings, stack.context)
    await released(settings, stack.context)
    for job_id, told in (
        (long, "holds 1024 tokens"),
        (number, "messages[0].content"),
        (missing, "no 'texts'"),
    ):
        ended = await job(stack, job_id)
        assert (ended["state"], ended["error"]["code"]) == ("failed", "dependency_input"), ended
        assert told in ended["error"]["message"]
    assert (await job(stack, missing))["error"]["param"] == "messages[0].content"
    assert (await job(stack, after))["error"]["code"] == "dependency_failed"


async def test_many_places_of_a_large_result_are_not_put_together_first(
    template: Path, tmp_path: Path, redis_url: str
) -> None:
    """What does not fit is refused before its parts are made: one job must not take the scheduler's memory."""
    settings = settings_for(tmp_path / "home", redis_url, api={"max_body": 500_000})
    replica = Replica(settings)
    async with serving(settings, template) as stack:
        first = await accepted(stack, CHAT)
        places = [{"role": "user", "content": "{{jobs.0.text}}"}] * 1000
        second = await accepted(
            stack, {"model": "demo-chat", "body": {"messages": places}, "depends_on": [first]}
        )
        await replica.answer_one(json.dumps({"text": "word " * 20_000}).encode())
        await recorded(settings, stack.context)
        tracemalloc.start()
        await released(settings, stack.context)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        ended = await job(stack, second)
        assert (ended["state"], ended["error"]["code"]) == ("failed", "dependency_input"), ended
        assert "With its inputs the request is larger" in ended["error"]["message"]
        assert most < 20_000_000
        refused = await stack.post(
            "/v1/jobs",
            {"model": "demo-chat", "body": {"messages": [*places, places[0]]}, "depends_on": [first]},
        )
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[1000].content")
    await replica.close()


async def test_a_part_that_stands_in_several_places_is_filled_into_each(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    first = await accepted(stack, CHAT)
    picture = base64.b64encode(PIXEL).decode()
    content = [
        {"type": "image_url", "image_url": "{{jobs.0.picture}}"},
        {"type": "image_url", "image_url": "{{jobs.0.picture}}"},
    ]
    await accepted(stack, ask(content, depends_on=[first]))
    found = {"picture": {"url": f"data:image/png;base64,{picture}"}}
    await replica.answer_one(json.dumps(found).encode())
    await recorded(settings, stack.context)
    await released(settings, stack.context)
    parts = json.loads((await replica.claim()).job.spec.body)["messages"][0]["content"]
    named = [part["image_url"]["url"] for part in parts]
    assert named[0] == named[1]
    assert named[0].startswith("artifact:")


async def test_what_cannot_be_read_is_not_tried_for_ever(
    stack: Stack, replica: Replica, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await accepted(stack, CHAT)
    second = await accepted(stack, ask("{{jobs.0.text}}", depends_on=[first]))
    stored = await stack.context.storage.artifacts.put(b'{"text": "from a file"}', "application/json")
    await replica.finish_with_artifact(await replica.claim(), stored.sha256, "application/json")
    await recorded(settings, stack.context)
    [path] = (settings.home / "artifacts").rglob(stored.sha256)
    path.unlink()
    path.mkdir()
    await released(settings, stack.context)
    assert (await job(stack, second))["state"] == "scheduled"
    monkeypatch.setattr(filling, "PATIENCE", 0.0)
    await released(settings, stack.context)
    ended = await job(stack, second)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "dependency_input")
    assert ended["error"]["message"] == "the artifact store cannot be used"


async def test_defaults_are_those_of_the_filled_request(
    template: Path, tmp_path: Path, redis_url: str
) -> None:
    defaults = {"chat/completions": {"max_tokens": 500}}
    settings = settings_for(tmp_path / "home", redis_url, request_defaults=defaults)
    replica = Replica(settings)
    async with serving(settings, template) as stack:
        first = await accepted(stack, CHAT)
        await accepted(stack, ask("{{jobs.0.text}}", depends_on=[first]))
        await replica.answer_one(json.dumps({"text": "word " * 120}).encode())
        await recorded(settings, stack.context)
        await released(settings, stack.context)
        body = json.loads((await replica.claim()).job.spec.body)
        # A placeholder leaves room for 500 tokens of 1024, the text that came for it does not.
        assert "max_tokens" not in body
    await replica.close()


async def test_a_file_that_a_job_made_is_the_file_of_the_next(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    picture = await stack.context.storage.artifacts.put(PIXEL, "image/png")
    first = await accepted(stack, CHAT)
    content = [
        {"type": "image_url", "image_url": {"url": "{{jobs.0}}"}},
        {"type": "text", "text": "What is this?"},
    ]
    await accepted(stack, ask(content, depends_on=[first]))
    await replica.finish_with_artifact(await replica.claim(), picture.sha256)
    await recorded(settings, stack.context)
    await released(settings, stack.context)
    body = json.loads((await replica.claim()).job.spec.body)
    assert body["messages"][0]["content"][0]["image_url"]["url"] == f"artifact:{picture.sha256}"


async def test_a_part_of_a_result_that_lies_in_a_file(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    first = await accepted(stack, CHAT)
    await accepted(stack, ask("{{jobs.0.text}}", depends_on=[first]))
    stored = await stack.context.storage.artifacts.put(b'{"text": "from a file"}', "application/json")
    attempt = await replica.claim()
    await replica.finish_with_artifact(attempt, stored.sha256, "application/json")
    await recorded(settings, stack.context)
    await released(settings, stack.context)
    body = json.loads((await replica.claim()).job.spec.body)
    assert body["messages"][0]["content"] == "from a file"


async def test_a_failed_job_fails_those_that_wait_for_it(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    first = await accepted(stack, CHAT)
    second = await accepted(stack, ask("x", depends_on=[first]))
    anyway = await accepted(stack, ask("x", depends_on=[first], on_dependency_failure="run"))
    await replica.fail(await replica.claim(), BROKEN)
    while (attempt := await replica.attempts.claim()) is not None:
        await replica.fail(attempt, BROKEN)
    await recorded(settings, stack.context)
    await released(settings, stack.context)
    ended = await job(stack, second)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "dependency_failed")
    assert first in ended["error"]["message"]
    assert (await job(stack, anyway))["state"] == "queued"


async def test_an_unfilled_job_cannot_be_given_another_model_alone(stack: Stack) -> None:
    first = await accepted(stack, CHAT)
    second = await accepted(stack, ask("{{jobs.0.text}}", depends_on=[first]))
    await stack.post(f"/v1/jobs/{first}/cancel")
    again = await stack.post(f"/v1/jobs/{second}/retry")
    assert (again.status_code, again.json()["state"]) == (202, "failed")
    queue = stack.context.gateway.queue
    assert await queue.redis.zcard(f"{queue.prefix}held:demo-chat") == 0, "what does not wait keeps no place"
    edited = await stack.post(f"/v1/jobs/{second}/requeue", {"body": BODY})
    assert edited.json()["state"] == "queued"


@pytest.mark.parametrize(
    ("envelope", "status", "param"),
    [
        (ask("x", depends_on=[new_job_id()]), 404, "depends_on"),
        (ask("x", depends_on=["nothing"]), 400, "depends_on[0]"),
        (ask("{{jobs.1}}", depends_on=["OWN"]), 400, "messages[0].content"),
        (ask("x", temperature="{{jobs.0}}"), 400, "temperature"),
        ({"model": "demo-chat", "body": {**BODY, "n": "{{jobs.0.n}}"}, "depends_on": ["OWN"]}, 400, "n"),
        (ask("x", on_dependency_failure="panic"), 400, "on_dependency_failure"),
    ],
)
async def test_what_cannot_wait_is_refused(
    stack: Stack, envelope: dict[str, Any], status: int, param: str
) -> None:
    own = await accepted(stack, CHAT)
    wanted = json.loads(json.dumps(envelope).replace("OWN", own))
    refused = await stack.post("/v1/jobs", wanted)
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)


async def test_others_jobs_are_not_there_to_be_waited_for(stack: Stack) -> None:
    theirs = await accepted(stack, CHAT, "other")
    refused = await stack.post("/v1/jobs", ask("{{jobs.0}}", depends_on=[theirs]))
    assert refused.status_code == 404


async def test_text_like_a_place_is_text_where_nothing_is_waited_for(stack: Stack, replica: Replica) -> None:
    await accepted(stack, ask("{{jobs.0}}"))
    attempt = await replica.claim()
    assert json.loads(attempt.job.spec.body)["messages"][0]["content"] == "{{jobs.0}}"


async def test_a_scheduled_job_is_followed_until_its_end(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    first = await accepted(stack, CHAT)
    second = await accepted(stack, ask("x", depends_on=[first]))
    async with stack.http.stream(
        "GET", f"/v1/jobs/{second}/events", headers=stack.headers(), timeout=2 * DEADLINE
    ) as response:
        lines = response.aiter_lines()
        for _ in range(2):
            await replica.answer_one()
            await recorded(settings, stack.context)
            await released(settings, stack.context)
        seen = [line async for line in lines if line.startswith("event: ")]
    assert seen[-1] == "event: done"


async def test_a_wait_for_a_scheduled_job_ends_with_it(stack: Stack) -> None:
    made = await stack.post("/v1/jobs", {**CHAT, "run_at": time.time() + 3600}, Prefer="wait=0")
    assert made.json()["state"] == "scheduled"
    await until(lambda: stack.post(f"/v1/jobs/{made.json()['id']}/cancel"))
