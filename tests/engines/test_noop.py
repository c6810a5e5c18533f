"""The engine without a model: its fixed answers and its hooks."""

from pathlib import Path

import httpx2
import pytest

from tests.engines.conftest import chat
from tests.engines.process import EngineProcess, running

CHAT = "/v1/chat/completions"


def test_a_chat_answer(noop: EngineProcess) -> None:
    body = noop.post(CHAT, chat("one two three")).json()
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "w0 w1 w2 w3"}
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_a_stream_has_a_role_words_a_finish_and_usage(noop: EngineProcess) -> None:
    events = noop.events(CHAT, chat("hi !tokens=2", stream_options={"include_usage": True}))
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "w0"}, {"content": " w1"}, {}]
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 2


def test_max_tokens_cuts_and_says_so(noop: EngineProcess) -> None:
    choice = noop.post("/v1/completions", {"prompt": "x", "max_tokens": 2}).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("w0 w1", "length")


def test_embeddings_have_length_one(noop: EngineProcess) -> None:
    data = noop.post("/v1/embeddings", {"input": ["a", "b"]}).json()["data"]
    assert [entry["index"] for entry in data] == [0, 1]
    assert sum(value * value for value in data[0]["embedding"]) == pytest.approx(1)


def test_the_error_hook(noop: EngineProcess) -> None:
    response = noop.post(CHAT, chat("!error"))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_error")


def test_the_oom_hook_has_a_code_of_its_own(noop: EngineProcess) -> None:
    response = noop.post(CHAT, chat("!oom"))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "out_of_memory")


def test_the_break_hook_ends_a_stream_with_an_error_event(noop: EngineProcess) -> None:
    with noop.client() as client:
        raw = client.post(CHAT, json=chat("!break", stream=True)).text
    assert '"code":"engine_error"' in raw.split("\n\n")[-2]
    assert "[DONE]" not in raw


def test_the_block_hook_silences_health(short_dir: Path) -> None:
    with (
        running("noop", short_dir) as engine,
        engine.sent(CHAT, chat("!block"), "blocked"),
        engine.client(timeout=0.5) as client,
        pytest.raises(httpx2.TimeoutException),
    ):
        client.get("/health")


def test_token_interval_spreads_the_words(short_dir: Path) -> None:
    options = {"token_interval_s": 0.05, "tokens": 5}
    with (
        running("noop", short_dir, options=options) as engine,
        engine.client() as client,
        client.stream("POST", CHAT, json=chat("x", stream=True)) as response,
    ):
        assert len(list(response.iter_raw())) >= 5
