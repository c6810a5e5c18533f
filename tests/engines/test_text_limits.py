"""What no request may make the text engine do: run a caller's program, hang, or fill the memory."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.engines.conftest import chat
from tests.engines.process import EngineProcess

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MOST_ANSWERS = 1024


def refusal(engine: EngineProcess, path: str, body: dict[str, Any]) -> tuple[int, str | None]:
    response = engine.post(path, body)
    assert response.status_code != 200, response.text[:200]
    return response.status_code, response.json()["error"]["param"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chat_template", "{{ 'a program of the caller' }}"),
        ("documents", [{"text": "x"}]),
        ("tools", []),
        ("tokenize", True),
        ("return_dict", True),
        ("add_generation_prompt", False),
        ("continue_final_message", True),
        ("tokenizer_kwargs", {}),
    ],
)
def test_a_template_gets_variables_and_nothing_else(text: EngineProcess, name: str, value: Any) -> None:
    body = chat("Say hello.", chat_template_kwargs={"enable_thinking": False, name: value}, max_tokens=1)
    assert refusal(text, CHAT, body) == (400, f"chat_template_kwargs.{name}")


def test_a_variable_of_the_template_may_be_set(text: EngineProcess) -> None:
    body = chat("Say hello.", chat_template_kwargs={"enable_thinking": False}, temperature=0)
    answer = text.post(CHAT, body).json()
    assert answer["choices"][0]["message"]["content"] == "Hello! I am a small demo model."


@pytest.mark.parametrize(
    ("count", "more"), [(MOST_ANSWERS + 1, {}), (9, {"n": 128}), (9, {"n": 1, "best_of": 128})]
)
def test_one_request_asks_for_a_bounded_number_of_answers(
    text: EngineProcess, count: int, more: dict[str, Any]
) -> None:
    body = {"prompt": ["x"] * count, "max_tokens": 1, **more}
    assert refusal(text, COMPLETIONS, body) == (400, "prompt")
    assert str(MOST_ANSWERS) in text.post(COMPLETIONS, body).json()["error"]["message"]


def test_as_many_answers_as_may_be_asked_for(text: EngineProcess) -> None:
    body = {"prompt": ["x"] * 8, "n": MOST_ANSWERS // 8, "max_tokens": 1}
    assert len(text.post(COMPLETIONS, body).json()["choices"]) == MOST_ANSWERS


def test_health_answers_while_prompts_are_tokenized(text: EngineProcess) -> None:
    body = json.dumps({"prompt": ["some words and so on, " * 2500] * 40, "max_tokens": 1}).encode()
    longest, whole = slowest_health(text, COMPLETIONS, body, "prompt")
    assert longest < whole / 2


def slowest_health(engine: EngineProcess, path: str, body: bytes, param: str) -> tuple[float, float]:
    """The longest wait for `/health` while a request is read that is refused in the end, and that request's seconds."""

    def ask() -> float:
        start = time.monotonic()
        with engine.client() as client:
            assert client.post(path, content=body).json()["error"]["param"] == param
        return time.monotonic() - start

    with ThreadPoolExecutor(1) as pool:
        asked, longest = pool.submit(ask), 0.0
        while not asked.done():
            start = time.monotonic()
            engine.health()
            longest = max(longest, time.monotonic() - start)
    return longest, asked.result()


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 10, "\u0664" * 5000])
def test_a_token_of_many_digits_is_the_callers_fault(text: EngineProcess, digits: str) -> None:
    assert refusal(text, CHAT, chat("x", logit_bias={digits: 1})) == (400, "logit_bias")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_arguments_nested_too_deep_are_the_callers_fault(text: EngineProcess, opening: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": opening * 100_000}}
    body = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
    status, param = refusal(text, CHAT, body)
    assert (status, param) == (400, "messages[0].tool_calls[0].function.arguments")


def test_arguments_too_deep_for_the_template_are_the_callers_fault(text: EngineProcess) -> None:
    arguments = "[" * 900 + "]" * 900
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    body = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
    assert refusal(text, CHAT, body)[0] == 400


def test_a_tool_has_a_name_of_some_length(text: EngineProcess) -> None:
    tools = [{"type": "function", "function": {"name": "f" * size}} for size in (256, 257)]
    body = chat("x", tools=tools, max_tokens=1)
    assert refusal(text, CHAT, body) == (400, "tools[1].function.name")
