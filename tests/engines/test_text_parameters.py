"""Each parameter of the text engine changes the answer as it should, or is refused by name."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import chat
from tests.engines.process import EngineProcess, eventually

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
COUNT = "Count from 1 to 60."


def choice(engine: EngineProcess, prompt: str, **more: Any) -> dict[str, Any]:
    response = engine.post(CHAT, chat(prompt, **more))
    assert response.status_code == 200, response.text
    return dict(response.json()["choices"][0])


def said(engine: EngineProcess, prompt: str, **more: Any) -> str:
    return str(choice(engine, prompt, **more)["message"]["content"])


def streamed(engine: EngineProcess, prompt: str, **more: Any) -> tuple[str, list[str]]:
    events = engine.events(CHAT, chat(prompt, **more))
    parts = [event["choices"][0]["delta"].get("content") or "" for event in events]
    return "".join(parts), parts


def refusal(engine: EngineProcess, path: str, body: dict[str, Any]) -> tuple[int, str, str]:
    response = engine.post(path, body)
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("5", "1, 2, 3, 4, "),
        (["9", "7, 8"], "1, 2, 3, 4, 5, 6, "),
        (", 12, 13", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"),
        ("1, 2", ""),
    ],
)
def test_stop_cuts_before_the_stop_text(text: EngineProcess, stop: Any, expected: str) -> None:
    found = choice(text, COUNT, temperature=0, stop=stop)
    assert (found["message"]["content"], found["finish_reason"]) == (expected, "stop")
    whole, parts = streamed(text, COUNT, temperature=0, stop=stop)
    assert whole == expected
    assert all(part in expected for part in parts)


def test_a_stop_text_that_never_comes_loses_nothing(text: EngineProcess) -> None:
    plain = said(text, "Count from 1 to 5.", temperature=0)
    assert said(text, "Count from 1 to 5.", temperature=0, stop=[", 5, 6", "5.5"]) == plain
    assert streamed(text, "Count from 1 to 5.", temperature=0, stop=[", 5, 6", "5.5"])[0] == plain


def test_max_tokens_cuts_and_says_length(text: EngineProcess) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        body = text.post(CHAT, chat(COUNT, temperature=0) | {name: 5}).json()
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["completion_tokens"] == 5


def test_the_same_seed_gives_the_same_answer(text: EngineProcess) -> None:
    hot = {"temperature": 2, "max_tokens": 30}
    first = [said(text, "go on", seed=seed, **hot) for seed in (1, 2, 3)]
    assert [said(text, "go on", seed=seed, **hot) for seed in (1, 2, 3)] == first
    assert len(set(first)) == 3
    assert len({said(text, "go on", **hot) for _ in range(3)}) == 3


def test_a_seed_holds_in_company(text: EngineProcess) -> None:
    alone = said(text, "go on", seed=5, temperature=2, max_tokens=30)
    with text.sent(CHAT, chat("something else", ignore_eos=True), "company"):
        eventually(lambda: "company" in text.running(), "company")
        assert said(text, "go on", seed=5, temperature=2, max_tokens=30) == alone


def test_n_gives_different_answers(text: EngineProcess) -> None:
    body = text.post(CHAT, chat("go on", n=3, seed=1, temperature=2, max_tokens=20)).json()
    assert len({entry["message"]["content"] for entry in body["choices"]}) == 3
    assert body["usage"]["completion_tokens"] <= 60


def test_best_of_gives_what_the_model_finds_likeliest(text: EngineProcess) -> None:
    body = {"prompt": ["go on", "and so"], "temperature": 2, "seed": 1, "max_tokens": 12, "ignore_eos": True}
    many = text.post(COMPLETIONS, body | {"n": 6, "logprobs": 0}).json()["choices"]
    best = text.post(COMPLETIONS, body | {"n": 2, "best_of": 6}).json()
    assert [choice["index"] for choice in best["choices"]] == [0, 1, 2, 3]
    assert all(choice["logprobs"] is None for choice in best["choices"])
    for start, found in ((0, best["choices"][:2]), (6, best["choices"][2:])):
        chances = {
            choice["text"]: sum(choice["logprobs"]["token_logprobs"])
            / len(choice["logprobs"]["token_logprobs"])
            for choice in many[start : start + 6]
        }
        ranked = sorted(chances, key=lambda said: chances[said], reverse=True)
        assert len(set(ranked)) > 2
        assert [choice["text"] for choice in found] == ranked[:2]
    assert refusal(text, COMPLETIONS, {"prompt": "x", "n": 3, "best_of": 2})[2] == "best_of"


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_narrow_sampling_is_greedy(text: EngineProcess, narrow: dict[str, Any]) -> None:
    greedy = said(text, "go on", temperature=0, max_tokens=20)
    assert said(text, "go on", temperature=2, max_tokens=20, **narrow) == greedy
    assert said(text, "go on", temperature=2, max_tokens=20, seed=1) != greedy


def test_logit_bias_forbids_and_forces(text: EngineProcess, chat_model: Path) -> None:
    def first(**more: Any) -> str:
        body = {"prompt": "Roses are red,", "temperature": 0, "max_tokens": 2, **more}
        return str(text.post(COMPLETIONS, body).json()["choices"][0]["text"])

    vocabulary = json.loads((chat_model / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    plain = first()
    begins = [number for token, number in vocabulary.items() if plain.startswith(token.replace("Ġ", " "))]
    assert not first(logit_bias=dict.fromkeys(map(str, begins), -100)).startswith(plain)
    assert first(logit_bias={str(vocabulary["x"]): 100}) == "xx"


def test_penalties_drive_repetition_out(text: EngineProcess) -> None:
    def most_repeated(**more: Any) -> int:
        words = said(text, COUNT, temperature=0, max_tokens=60, **more)
        return words.count(",")

    plain = most_repeated()
    assert most_repeated(presence_penalty=0, frequency_penalty=0) == plain
    assert most_repeated(frequency_penalty=2) < plain
    assert most_repeated(repetition_penalty=5) < plain


def test_logprobs_are_the_models_own(text: EngineProcess) -> None:
    entries = choice(text, "Say hello.", temperature=0, logprobs=True, top_logprobs=3)["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == "Hello! I am a small demo model."
    for entry in entries:
        top = [one["logprob"] for one in entry["top_logprobs"]]
        assert len(top) == 3
        assert top == sorted(top, reverse=True)
        assert entry["logprob"] == pytest.approx(top[0])
        assert sum(math.exp(value) for value in top) <= 1.001
        assert bytes(entry["bytes"]).decode() == entry["token"]


def test_streamed_logprobs_are_those_of_the_whole_answer(text: EngineProcess) -> None:
    whole = choice(text, "Say hello.", temperature=0, logprobs=True)["logprobs"]["content"]
    events = text.events(CHAT, chat("Say hello.", temperature=0, logprobs=True))
    found = [event["choices"][0].get("logprobs") for event in events]
    tokens = [entry["token"] for one in found if one for entry in one["content"]]
    assert tokens == [entry["token"] for entry in whole]


def test_a_json_object_is_held_to_json(text: EngineProcess) -> None:
    wanted = {"type": "json_object"}
    found = said(text, "Give me a JSON object with a name and an age.", temperature=0, response_format=wanted)
    assert found == '{"name": "Ada", "age": 36}'
    forced = said(text, "Say hello.", temperature=1, seed=3, response_format=wanted, max_tokens=40)
    assert forced.startswith("{")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"stream": True, "stream_options": {"odd": 1}}, "odd"),
        ({"messages": [{"role": "user", "content": "x", "odd": 1}]}, "messages[0].odd"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(text: EngineProcess, more: dict[str, Any], param: str) -> None:
    assert refusal(text, CHAT, chat("x") | more) == (400, "unsupported_parameter", param)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
    ],
)
def test_what_completions_cannot_do_is_refused(text: EngineProcess, more: dict[str, Any], param: str) -> None:
    assert refusal(text, COMPLETIONS, {"prompt": "x", **more}) == (400, "unsupported_parameter", param)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"seed": "x"}, "seed"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ],
)
def test_wrong_values_name_their_field(text: EngineProcess, more: dict[str, Any], param: str) -> None:
    status, _, found = refusal(text, CHAT, chat("x") | more)
    assert (status, found) == (400, param)


def test_a_prompt_over_the_context(text: EngineProcess) -> None:
    context = text.health()["context"]
    long = chat("word " * context)
    assert refusal(text, CHAT, long) == (400, "context_length_exceeded", "messages")
    assert refusal(text, COMPLETIONS, {"prompt": [5] * context}) == (400, "context_length_exceeded", "prompt")
    asked = chat("x", max_tokens=context)
    assert refusal(text, CHAT, asked) == (400, "context_length_exceeded", "messages")


def test_the_context_can_be_filled_to_its_end(text: EngineProcess) -> None:
    context = text.health()["context"]
    body = text.post(COMPLETIONS, {"prompt": [5] * (context - 1), "max_tokens": 1, "ignore_eos": True}).json()
    assert body["usage"]["total_tokens"] == context


def test_cancelled_sequences_leave_the_batch(text: EngineProcess) -> None:
    with text.sent(CHAT, chat("go on", ignore_eos=True, n=4), "four"):
        eventually(lambda: text.health()["sequences"] == 4, "running")
    eventually(lambda: text.health()["sequences"] == 0, "released", 1.0)
    steps = text.health()["steps"]
    assert text.post(CHAT, chat("x", max_tokens=1)).status_code == 200
    assert text.health()["steps"] <= steps + 2
