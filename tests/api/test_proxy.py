"""Proxy mode: `/openai/{model}:{context}/v1/...`, for every name that a request may ask for; and aliases."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from inferq.config import Settings
from tests.api.stack import CHAT, CHUNKS, DONE, MODELS, Replica, Stack, settings_for

MESSAGES = CHAT["messages"]
SLASHED = "team/demo-chat"
MORE = {
    SLASHED: {"engine": "text", "source": "models/demo-chat", "type": "chat", "context": 32768},
    "open": {"engine": "text", "source": "models/none", "type": "chat"},
}


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return settings_for(tmp_path / "home", redis_url, models={**MODELS, **MORE})


@pytest.fixture
async def slashed(settings: Settings) -> AsyncIterator[Replica]:
    made = Replica(settings, SLASHED)
    yield made
    await made.close()


async def passed(stack: Stack, replica: Replica, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body that the engine gets."""
    call = asyncio.create_task(stack.post(path, body))
    attempt = await replica.answer_one()
    response = await call
    assert response.status_code == 200, response.text
    return dict(json.loads(attempt.job.spec.body))


@pytest.mark.parametrize("context", ["", ":20k", ":20K", ":8192"])
@pytest.mark.parametrize("body", [{}, {"model": "gpt-4o"}, {"model": "demo-embed"}])
async def test_the_path_names_the_model(
    stack: Stack, slashed: Replica, context: str, body: dict[str, str]
) -> None:
    path = f"/openai/{SLASHED}{context}/v1/chat/completions"
    found = await passed(stack, slashed, path, {"messages": MESSAGES, **body})
    assert found["model"] == SLASHED
    assert ("max_tokens" in found) == bool(context)


async def test_an_alias_may_stand_in_the_path(stack: Stack, replica: Replica) -> None:
    found = await passed(stack, replica, "/openai/gpt-4o-mini/v1/chat/completions", {"messages": MESSAGES})
    assert found["model"] == "demo-chat"


@pytest.mark.parametrize(
    "path", ["/openai/absent/v1/", "/openai/absent:20k/v1/", "/openai/team/absent:1/v1/"]
)
async def test_an_unknown_model_is_named(stack: Stack, path: str) -> None:
    response = await stack.post(f"{path}chat/completions", CHAT)
    assert response.status_code == 404
    error = response.json()["error"]
    name = path.removeprefix("/openai/").removesuffix("/v1/").partition(":")[0]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert f"'{name}'" in error["message"]


@pytest.mark.parametrize(
    ("limit", "tokens", "holds"), [("1k", 900, 1024), ("1000", 900, 1000), ("1000k", 40_000, 32768)]
)
async def test_the_context_is_a_bound(stack: Stack, limit: str, tokens: int, holds: int) -> None:
    """The smaller of the path's and the model's own."""
    path = f"/openai/{SLASHED}:{limit}/v1"
    for call, body in (
        ("completions", {"prompt": [7] * tokens, "max_tokens": 200}),
        ("chat/completions", {"messages": MESSAGES, "max_tokens": holds + 1}),
    ):
        response = await stack.post(f"{path}/{call}", body)
        assert response.status_code == 400, call
        assert response.json()["error"]["code"] == "context_length_exceeded"
        assert f"holds {holds} tokens" in response.json()["error"]["message"]


async def test_a_model_of_unknown_context_gets_one(stack: Stack) -> None:
    body = {"prompt": [7] * 2048}
    response = await stack.post("/openai/open:2k/v1/completions", body)
    assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_reading_works_below_the_prefix_too(stack: Stack, replica: Replica) -> None:
    for path in ("/openai/demo-chat/v1/models", "/openai/demo-chat:1k/v1/models"):
        response = await stack.get(path)
        assert response.status_code == 200
        assert "demo-chat" in [model["id"] for model in response.json()["data"]]
    assert (await stack.get("/openai/demo-chat:1k/v1/models/demo-chat")).json()["id"] == "demo-chat"
    assert (await stack.get("/openai/demo-chat:1k/v1/nothing")).status_code == 404
    assert (await stack.get("/openai/demo-chat/v1/models", who=None)).status_code == 401


@pytest.mark.parametrize(
    "job",
    [
        {"body": {"messages": MESSAGES}},
        {"model": "gpt-4o", "body": {"messages": MESSAGES, "model": "gpt-4"}},
        {"messages": MESSAGES, "model": "gpt-4o"},
    ],
)
async def test_jobs_are_for_the_model_of_the_path(stack: Stack, job: dict[str, Any]) -> None:
    response = await stack.post(f"/openai/{SLASHED}:4k/v1/jobs", job)
    assert response.status_code == 202, response.text
    assert response.json()["model"] == SLASHED


async def test_other_paths_stay_as_they_are(stack: Stack, replica: Replica) -> None:
    """`/openai/v1` is the plain API, and no model of that name."""
    found = await passed(stack, replica, "/openai/v1/chat/completions", CHAT)
    assert "max_tokens" not in found
    for path in ("/openai/demo-chat", "/openai/demo-chat/chat/completions", "/openai/:20k/v1/models"):
        assert (await stack.post(path, CHAT)).status_code in (404, 405)


async def test_openais_client_below_the_prefix(stack: Stack, slashed: Replica) -> None:
    base = f"{stack.url}/openai/{SLASHED}:20k/v1"
    async with openai.AsyncOpenAI(api_key=stack.keys["user"], base_url=base, max_retries=0) as client:

        async def words() -> str:
            stream = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        call = asyncio.create_task(words())
        await slashed.stream(await slashed.claim(), [*CHUNKS, DONE])
        assert await call == "Hello!"
        assert SLASHED in [model.id async for model in client.models.list()]
