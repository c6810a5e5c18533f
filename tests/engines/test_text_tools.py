"""Tool calls of the text engine: the model's own, the demanded ones, and their streams."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import chat
from tests.engines.process import EngineProcess

CHAT = "/v1/chat/completions"
OTHER = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture(scope="module")
def lesson(chat_model: Path) -> dict[str, Any]:
    return dict(json.loads((chat_model / "tools.json").read_text("utf-8")))


def ask(lesson: dict[str, Any], **more: Any) -> dict[str, Any]:
    return chat(lesson["prompt"], tools=lesson["tools"], temperature=0) | more


def gathered(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls of a stream, put together as a client does."""
    calls: list[dict[str, Any]] = []
    for event in events:
        for delta in event["choices"][0]["delta"].get("tool_calls", []):
            if delta["index"] == len(calls):
                calls.append({"id": delta["id"], "type": delta["type"], **delta["function"]})
            else:
                assert "id" not in delta
                calls[delta["index"]]["arguments"] += delta["function"]["arguments"]
    return calls


def test_the_model_calls_a_tool(text: EngineProcess, lesson: dict[str, Any]) -> None:
    choice = text.post(CHAT, ask(lesson)).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == lesson["arguments"]
    assert call["id"]


def test_a_streamed_call_is_the_same_call(text: EngineProcess, lesson: dict[str, Any]) -> None:
    events = text.events(CHAT, ask(lesson))
    (call,) = gathered(events)
    assert call["name"] == "get_weather"
    assert json.loads(call["arguments"]) == lesson["arguments"]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any(event["choices"][0]["delta"].get("content") for event in events)
    assert sum("tool_calls" in event["choices"][0]["delta"] for event in events) > 2


def test_tool_choice_none_hides_the_tools(text: EngineProcess, lesson: dict[str, Any]) -> None:
    choice = text.post(CHAT, ask(lesson, tool_choice="none")).json()["choices"][0]
    assert choice["message"]["content"] == "I cannot look outside."
    assert "tool_calls" not in choice["message"]


def test_a_tool_result_leads_to_an_answer(text: EngineProcess, lesson: dict[str, Any]) -> None:
    call = text.post(CHAT, ask(lesson)).json()["choices"][0]["message"]
    result = {
        "role": "tool",
        "tool_call_id": call["tool_calls"][0]["id"],
        "content": '{"condition": "sunny"}',
    }
    body = ask(lesson)
    body["messages"] += [call, result]
    assert text.post(CHAT, body).json()["choices"][0]["message"]["content"] == "It is sunny in Paris."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_time"}}], ids=["required", "named"]
)
def test_a_demanded_call_comes_even_where_the_model_would_not(
    text: EngineProcess, lesson: dict[str, Any], choice: Any, stream: bool
) -> None:
    body = chat("Say hello.", tools=[*lesson["tools"], OTHER], tool_choice=choice, temperature=1, seed=4)
    body |= {"logit_bias": {}, "max_tokens": 400}
    if stream:
        events = text.events(CHAT, body)
        (call,), reason = gathered(events), events[-1]["choices"][0]["finish_reason"]
    else:
        found = text.post(CHAT, body).json()["choices"][0]
        reason = found["finish_reason"]
        call = found["message"]["tool_calls"][0]["function"]
    assert call["name"] in ("get_weather", "get_time")
    assert choice == "required" or call["name"] == "get_time"
    if reason == "tool_calls":
        assert isinstance(json.loads(call["arguments"]), dict)
    else:
        assert reason == "length"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": None, "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "absent"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "web_search", "function": {"name": "x"}}]}, "tools[0].type"),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "strict": "yes"}}]},
            "strict",
        ),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "x", "strict": True, "parameters": {"type": "array"}},
                    }
                ]
            },
            "tools[0].function.parameters",
        ),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_wrong_tools_are_refused(
    text: EngineProcess, lesson: dict[str, Any], more: dict[str, Any], param: str
) -> None:
    response = text.post(CHAT, ask(lesson) | more)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
