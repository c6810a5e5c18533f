"""The text engine holds its answers to JSON schemas: of the response, and of strict tools."""

import json
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from tests.engines.conftest import chat
from tests.engines.process import EngineProcess

CHAT = "/v1/chat/completions"


def wanted(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
MOOD = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["glad", "sad"]},
        "sure": {"type": "number", "minimum": 0, "maximum": 1},
        "why": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
    },
    "required": ["mood", "sure", "why"],
}


def test_what_the_model_says_anyway_is_left_as_it_is(text: EngineProcess) -> None:
    body = chat(
        "Give me a JSON object with a name and an age.", temperature=0, response_format=wanted(PERSON)
    )
    choice = text.post(CHAT, body).json()["choices"][0]
    assert choice["message"]["content"] == '{"name": "Ada", "age": 36}'
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_model_that_would_say_something_else_is_held(
    text: EngineProcess, seed: int, temperature: float
) -> None:
    body = chat(
        "Tell me a story.", temperature=temperature, seed=seed, response_format=wanted(MOOD), max_tokens=300
    )
    choice = text.post(CHAT, body).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    found = json.loads(choice["message"]["content"])
    assert list(found) == ["mood", "sure", "why"]
    assert found["mood"] in ("glad", "sad")
    assert 0 <= found["sure"] <= 1
    assert all(len(reason) <= 8 for reason in found["why"])
    streamed = text.events(CHAT, body)
    assert (
        "".join(e["choices"][0]["delta"].get("content", "") for e in streamed) == choice["message"]["content"]
    )


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": PERSON}}, "response_format.json_schema"),
        (wanted({"type": "array"}), "response_format.json_schema.schema"),
        (
            wanted({"type": "object", "properties": {"x": {"type": "string", "pattern": "a"}}}),
            "response_format.json_schema.schema.properties.x.pattern",
        ),
    ],
)
def test_a_schema_that_cannot_be_held_is_refused(
    text: EngineProcess, form: dict[str, Any], param: str
) -> None:
    response = text.post(CHAT, chat("x", response_format=form))
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def strict(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, "strict": True}}


@pytest.mark.parametrize("seed", range(3))
def test_strict_arguments_are_held_to_their_tool(text: EngineProcess, seed: int) -> None:
    tools = [strict("report", MOOD), strict("introduce", PERSON)]
    body = chat("Say hello.", tools=tools, tool_choice="required", temperature=1.2, seed=seed, max_tokens=300)
    (call,) = text.post(CHAT, body).json()["choices"][0]["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    assert list(arguments) == (
        ["mood", "sure", "why"] if call["function"]["name"] == "report" else ["name", "age"]
    )


@pytest.mark.parametrize("parallel", [True, False])
def test_a_strict_tool_may_be_left_or_called(text: EngineProcess, chat_model: Path, parallel: bool) -> None:
    """With `auto` the model chooses; when it calls, its arguments are held to the schema."""
    lesson = json.loads((chat_model / "tools.json").read_text("utf-8"))
    tool = {"type": "function", "function": {**lesson["tools"][0]["function"], "strict": True}}
    tool["function"]["parameters"] = {**tool["function"]["parameters"], "additionalProperties": False}
    body = chat(lesson["prompt"], tools=[tool], temperature=0, parallel_tool_calls=parallel)
    choice = text.post(CHAT, body).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == lesson["arguments"]
    plain = text.post(CHAT, body | {"messages": [{"role": "user", "content": "Thank you."}]}).json()
    assert plain["choices"][0]["finish_reason"] in ("stop", "tool_calls")


class Person(pydantic.BaseModel):
    name: str
    age: int


async def test_openais_client_parses_what_it_asked_for(text: EngineProcess) -> None:
    import httpx2

    transport = httpx2.AsyncHTTPTransport(uds=str(text.address))
    async with httpx2.AsyncClient(transport=transport) as http:
        client = openai.AsyncOpenAI(base_url="http://engine/v1", api_key="none", http_client=http)
        messages: Any = [{"role": "user", "content": "Give me a JSON object with a name and an age."}]
        answer = await client.chat.completions.parse(
            model=text.name, messages=messages, temperature=0, response_format=Person
        )
        assert answer.choices[0].message.parsed == Person(name="Ada", age=36)


@pytest.mark.parametrize("value", ["e\u0301e\u0301 and more", "<|im_end|> and more", "words " * 200])
def test_a_fixed_value_is_said_as_it_is(text: EngineProcess, value: str) -> None:
    """Though the tokenizer would compose characters, or read a token that ends the answer."""
    schema = {"type": "object", "properties": {"x": {"const": value}}, "required": ["x"]}
    body = chat("Say hello.", temperature=0, response_format=wanted(schema))
    choice = text.post(CHAT, body).json()["choices"][0]
    assert json.loads(choice["message"]["content"]) == {"x": value}
    assert choice["finish_reason"] == "stop"
