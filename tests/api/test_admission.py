"""Refused before it waits: what is longer than the context, and models that fit no device."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api import submission
from inferq.config import Settings
from inferq.endpoints import ENDPOINTS
from queues import room
from queues.connection import connect
from queues.presence import NodeInfo, Presence
from tests.api.stack import CHAT, MODELS, Stack, settings_for

GIB = 2**30
BIG = {"engine": "text", "source": "none", "type": "chat", "memory": "40GiB"}


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    pinned = {**BIG, "device": "cuda:0"}
    return settings_for(tmp_path / "home", redis_url, models={**MODELS, "big": BIG, "pinned": pinned})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FRESH", 0.0)


async def report(settings: Settings, node: str, *memory: int, kind: str = "cuda") -> None:
    client = connect(settings)
    devices = [{"name": f"{kind}:{place}", "memory_total": size} for place, size in enumerate(memory)]
    info = NodeInfo(name=node, pid=1, seen_at=time.time(), devices=devices)
    await Presence(client, settings.queue.prefix).show_node(info)
    await client.aclose()


async def submitted(stack: Stack, model: str = "big") -> tuple[int, dict[str, Any]]:
    response = await stack.post("/v1/jobs", {**CHAT, "model": model})
    return response.status_code, response.json()


async def test_a_prompt_over_the_context_never_waits(stack: Stack) -> None:
    for path in ("/v1/completions", "/v1/jobs"):
        body = {"model": "demo-chat", "prompt": [5] * 1024, "endpoint": "completions"}
        if path != "/v1/jobs":
            del body["endpoint"]
        response = await stack.post(path, body)
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
        assert error["message"] == "The context of 'demo-chat' holds 1024 tokens; 'prompt' has at least 1024."
    depths = await stack.context.gateway.queue.depths()
    assert not any(sum(lanes.values()) for lanes in depths.values())


async def test_a_model_that_fits_no_device_is_refused(stack: Stack, settings: Settings) -> None:
    await report(settings, "one", 24 * GIB, 16 * GIB)
    await report(settings, "two", 8 * GIB, kind="cpu")
    for path, body in (("/v1/jobs", CHAT), ("/v1/chat/completions", CHAT)):
        response = await stack.post(path, {**body, "model": "big"})
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("model_too_large", "model")
        for part in (
            "'big'",
            "40.0 GiB",
            "cuda:0 of one has 24.0 GiB",
            "cuda:1 of one has 16.0",
            "cpu:0 of two",
        ):
            assert part in error["message"]


async def test_one_device_that_is_large_enough_will_do(stack: Stack, settings: Settings) -> None:
    await report(settings, "one", 24 * GIB)
    await report(settings, "two", 40 * GIB)
    assert (await submitted(stack))[0] == 202


async def test_nothing_is_refused_on_what_nobody_knows(stack: Stack, settings: Settings) -> None:
    assert (await submitted(stack))[0] == 202, "no node has reported"
    await report(settings, "one", 24 * GIB, 0)
    assert (await submitted(stack))[0] == 202, "a device whose memory is not known"
    await report(settings, "one", 1 * GIB)
    assert (await submitted(stack, "demo-chat"))[0] == 202, "a model whose need is not known"


async def test_a_pinned_model_needs_its_own_device(stack: Stack, settings: Settings) -> None:
    await report(settings, "one", 24 * GIB, 80 * GIB)
    assert (await submitted(stack, "pinned"))[0] == 400
    await report(settings, "one", 80 * GIB, kind="gcu")
    assert (await submitted(stack, "pinned"))[0] == 202, "its device may come yet"


async def test_one_reading_serves_many_requests(
    stack: Stack, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "FRESH", 60.0)
    assert (await submitted(stack))[0] == 202
    await report(settings, "one", 24 * GIB)
    assert (await submitted(stack))[0] == 202
    monkeypatch.setattr(room, "FRESH", 0.0)
    assert (await submitted(stack))[0] == 400


async def test_large_bodies_are_checked_off_the_event_loop(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[bool] = []
    endpoint = ENDPOINTS["embeddings"]

    def noted(result: Any) -> Callable[..., Any]:
        def work(*_: Any) -> Any:
            where.append(threading.current_thread() is threading.main_thread())
            return result

        return work

    spied = replace(endpoint, prompts=noted(()), units=noted(1.0))
    monkeypatch.setitem(ENDPOINTS, "embeddings", spied)
    for size, on_the_loop in ((10, True), (submission.LARGE, False)):
        where.clear()
        body = {"model": "demo-embed", "input": "x" * size}
        assert (await stack.post("/v1/embeddings", body, Prefer="respond-async")).status_code == 202
        assert where == [on_the_loop] * 2
