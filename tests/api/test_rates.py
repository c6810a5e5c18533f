"""What is left of a tenant's minute, and of its budget, as callers hear it: OpenAI's headers and errors."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from api.rate_headers import duration
from tests.api.stack import CHAT, CHUNKS, Replica, Stack, recorded, serving, settings_for

BOUNDS = {
    "*": {"requests_per_minute": 3, "tokens_per_minute": 10_000},
    "admin": {"device_seconds_per_day": 0.05},
}
HEADERS = [
    f"x-ratelimit-{kind}-{what}"
    for what in ("requests", "tokens")
    for kind in ("limit", "remaining", "reset")
]


@pytest.fixture
async def bounded(tmp_path: Path, redis_url: str, template: Path) -> AsyncIterator[tuple[Stack, Replica]]:
    settings = settings_for(tmp_path / "home", redis_url, tenants=BOUNDS)
    replica = Replica(settings)
    async with serving(settings, template) as stack:
        yield stack, replica
    await replica.close()


async def test_every_way_to_ask_is_told_what_is_left(bounded: tuple[Stack, Replica]) -> None:
    stack, replica = bounded
    whole, _ = await asyncio.gather(stack.post("/v1/chat/completions", CHAT), replica.answer_one())
    call = asyncio.create_task(stack.post("/v1/chat/completions", {**CHAT, "stream": True}))
    await replica.stream(await replica.claim(), CHUNKS)
    durable = await stack.post("/v1/jobs", CHAT)
    for number, answer in enumerate([whole, await call, durable]):
        assert [name for name in HEADERS if name not in answer.headers] == []
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"] == str(2 - number)
        assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 10_000


async def test_over_the_bound_the_caller_is_told_when_to_come_back(bounded: tuple[Stack, Replica]) -> None:
    stack, _ = bounded
    for _ in range(3):
        await stack.submit()
    refused = await stack.post("/v1/chat/completions", CHAT)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 15 <= int(refused.headers["retry-after"]) <= 21
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    assert (await stack.post("/v1/jobs", CHAT)).status_code == 429
    assert (await stack.post("/v1/jobs", CHAT, "other")).status_code == 202


async def test_openais_client_sees_a_rate_limit(bounded: tuple[Stack, Replica]) -> None:
    stack, _ = bounded
    for _ in range(3):
        await stack.submit()
    async with openai.AsyncOpenAI(
        api_key=stack.keys["user"], base_url=f"{stack.url}/v1", max_retries=0
    ) as client:
        with pytest.raises(openai.RateLimitError, match="3 requests per minute"):
            await client.chat.completions.create(**CHAT)


async def test_a_spent_budget_is_told(bounded: tuple[Stack, Replica]) -> None:
    stack, replica = bounded
    await asyncio.gather(stack.post("/v1/chat/completions", CHAT, "admin"), replica.answer_one())
    refused = await stack.post("/v1/chat/completions", CHAT, "admin")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert "0.05 device seconds of the day" in refused.json()["error"]["message"]


async def test_what_is_run_again_is_bounded_as_a_new_job_is(bounded: tuple[Stack, Replica]) -> None:
    stack, _ = bounded
    job_id = await stack.submit()
    await stack.post(f"/v1/jobs/{job_id}/cancel")
    for _ in range(2):
        assert (await stack.post(f"/v1/jobs/{job_id}/retry")).status_code == 202
        await stack.post(f"/v1/jobs/{job_id}/cancel")
    for again, body in (("retry", None), ("requeue", {"body": {"messages": CHAT["messages"]}})):
        refused = await stack.post(f"/v1/jobs/{job_id}/{again}", body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) > 0
    left = (await stack.get(f"/v1/jobs/{job_id}")).json()
    assert (left["state"], left["generation"]) == ("cancelled", 2)


async def test_who_has_spent_its_budget_runs_nothing_again(bounded: tuple[Stack, Replica]) -> None:
    stack, replica = bounded
    job_id = await stack.submit("admin")
    await replica.answer_one()
    await recorded(stack.context.settings, stack.context)
    again = {"body": {"messages": CHAT["messages"]}}
    refused = await stack.post(f"/v1/jobs/{job_id}/requeue", again, "admin")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")


async def test_without_bounds_there_are_no_such_headers(stack: Stack) -> None:
    answer = await stack.post("/v1/jobs", CHAT)
    assert [name for name in answer.headers if name.startswith("x-ratelimit")] == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"),
        (0.25, "250ms"),
        (1.0, "1s"),
        (59.6, "1m0s"),
        (360, "6m0s"),
        (3723, "1h2m3s"),
        (3600, "1h0m0s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
