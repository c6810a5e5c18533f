"""The manual's calls that look at the system: models, what runs, how fast it is, and where."""

import time
from typing import Any

import httpx2
import pytest

from tests.e2e.contract import said
from tests.e2e.manual.names import CHAT, CODER, EMBEDDER, FILMER, LISTENER, PAINTER, RERANKER, SPEAKER, VISION
from tests.e2e.stack import Stack
from tests.e2e.waiting import until

TYPES = {
    "demo-chat": "chat",
    VISION: "chat",
    PAINTER: "image",
    SPEAKER: "tts",
    LISTENER: "asr",
    EMBEDDER: "embedding",
    RERANKER: "rerank",
    FILMER: "video",
}


def answered(response: httpx2.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def test_every_model_with_what_is_known_of_it(http: httpx2.Client) -> None:
    models = answered(http.get("models"))
    told = {model["id"]: model["info"] for model in models["data"]}
    assert {name: info["type"] for name, info in told.items()} == TYPES
    assert told["demo-chat"]["state"] == "ready"
    assert told["demo-chat"]["context"] == 2048
    assert {CHAT, CODER} <= set(told["demo-chat"]["aliases"])
    assert all(set(info["waiting"]) == {"high", "medium", "low"} for info in told.values())


@pytest.mark.parametrize(("asked", "found"), [(CHAT, "demo-chat"), (PAINTER, PAINTER)])
def test_one_model_by_any_of_its_names(http: httpx2.Client, asked: str, found: str) -> None:
    assert answered(http.get(f"models/{asked}"))["id"] == found


def test_what_runs(http: httpx2.Client, stack: Stack) -> None:
    stack.until_ready("demo-chat")
    running = answered(http.get("running_models"))
    chat = next(each for each in running if each["model"] == "demo-chat")
    assert (chat["state"], chat["slots"]) == ("ready", 1)
    assert chat["pid"] == stack.replica("demo-chat").pid
    assert chat["load_seconds"] > 0
    assert {each["model"] for each in running} <= set(TYPES)


def test_how_fast_models_are(http: httpx2.Client) -> None:
    def profile() -> dict[str, Any]:
        found = {each["model"]: each for each in answered(http.get("profiler"))["data"]}
        assert set(found) == set(TYPES)
        return dict(found["demo-chat"])

    before = profile()
    body = {"model": CHAT, "messages": said("Count from 1 to 60."), "temperature": 0}
    began = time.monotonic()
    tokens = answered(http.post("chat/completions", json=body))["usage"]["completion_tokens"]
    took = time.monotonic() - began
    # The ledger hears of it a moment later.
    after = until(lambda: (now := profile())["requests"] > before["requests"] and now, "it is counted")
    assert after["load_seconds"] > 0
    assert 0 <= after["queued_seconds"]["p50"] <= after["queued_seconds"]["p95"]
    assert 0 < after["running_seconds"]["p50"] <= after["running_seconds"]["p95"]
    assert (after["unit"], after["success_rate"] > 0) == ("tokens", True)
    assert after["units_per_second"] > 0
    if before["tokens_per_second"] is None:
        assert after["tokens_per_second"] >= tokens / took
    short = answered(http.get("profiler", params={"window": 1}))
    assert short["window_seconds"] == 1


def test_where_they_run(http: httpx2.Client, stack: Stack) -> None:
    stack.until_ready("demo-chat")
    (node,) = answered(http.get("nodes"))["data"]
    assert node["memory_total"] > node["memory_used"] > 0
    assert "cpu:0" in {device["name"] for device in node["devices"]}
    assert all(device["memory_total"] > 0 for device in node["devices"])
    here = {replica["model"]: replica for replica in node["replicas"]}
    assert here["demo-chat"]["device"] in {device["name"] for device in node["devices"]}
    assert here["demo-chat"]["memory_bytes"] > 10_000_000


def test_a_regular_look_at_the_system(http: httpx2.Client, stack: Stack) -> None:
    """What `check_system_status` of the manual counts and prints."""
    stack.until_ready("demo-chat")
    running, profiler = answered(http.get("running_models")), answered(http.get("profiler"))
    assert 1 <= len(running) <= len(TYPES)
    assert len(profiler["data"]) == len(TYPES)
