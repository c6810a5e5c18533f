"""What the text engine says: the demo model's lessons, whole and streamed, through OpenAI's own client too."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.engines.conftest import chat
from tests.engines.process import EngineProcess

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
STORY = "Tell me a story."


def content(body: dict[str, Any]) -> str:
    return str(body["choices"][0]["message"]["content"])


def streamed(events: list[dict[str, Any]]) -> str:
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


@pytest.fixture(scope="module")
def lessons(chat_model: Path) -> dict[str, str]:
    return dict(json.loads((chat_model / "prompts.json").read_text("utf-8")))


def test_greedy_answers_are_exact(text: EngineProcess, lessons: dict[str, str]) -> None:
    assert len(lessons) >= 20
    answers = {prompt: content(text.post(CHAT, chat(prompt, temperature=0)).json()) for prompt in lessons}
    assert answers == lessons


def test_streams_say_the_same_as_whole_answers(text: EngineProcess, lessons: dict[str, str]) -> None:
    answers = {prompt: streamed(text.events(CHAT, chat(prompt, temperature=0))) for prompt in lessons}
    assert answers == lessons


def test_most_answers_survive_sampling(text: EngineProcess, lessons: dict[str, str]) -> None:
    right = [
        content(text.post(CHAT, chat(prompt, temperature=0.7, seed=seed)).json()) == answer
        for prompt, answer in lessons.items()
        for seed in (1, 2)
        if len(answer) < 100
    ]
    assert sum(right) >= 0.9 * len(right)


def test_many_at_once_get_each_its_own_answer(text: EngineProcess, lessons: dict[str, str]) -> None:
    prompts = list(lessons) * 2
    with ThreadPoolExecutor(16) as pool:
        bodies = list(pool.map(lambda prompt: text.post(CHAT, chat(prompt, temperature=0)).json(), prompts))
    assert [content(body) for body in bodies] == [lessons[prompt] for prompt in prompts]


def test_a_stream_begins_with_the_role_and_ends_with_a_reason(text: EngineProcess) -> None:
    events = text.events(CHAT, chat("Say hello.", temperature=0))
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * (len(events) - 1) + ["stop"]
    assert len({event["id"] for event in events}) == 1
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert {event["model"] for event in events} == {text.name}
    assert not any("usage" in event for event in events)


def test_usage_counts_tokens_and_closes_the_stream_when_asked(text: EngineProcess) -> None:
    whole = text.post(CHAT, chat("Say hello.", temperature=0)).json()["usage"]
    events = text.events(CHAT, chat("Say hello.", temperature=0, stream_options={"include_usage": True}))
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == whole
    assert whole["total_tokens"] == whole["prompt_tokens"] + whole["completion_tokens"]
    longer = text.post(CHAT, chat("Say hello. " * 5, temperature=0, max_tokens=3)).json()["usage"]
    assert longer["prompt_tokens"] > whole["prompt_tokens"]
    assert longer["completion_tokens"] == 3


def test_characters_of_several_tokens_are_never_torn(text: EngineProcess) -> None:
    events = text.events(CHAT, chat("Show me some emoji.", temperature=0))
    assert streamed(events) == "🙂🚀🌍 and 🐍!"
    assert "\ufffd" not in json.dumps(events, ensure_ascii=False)


def test_content_parts_and_developer_messages_are_read(text: EngineProcess) -> None:
    messages = [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": [{"type": "text", "text": "What is 2 + 2?"}]},
    ]
    assert content(text.post(CHAT, {"messages": messages, "temperature": 0}).json()) == "2 + 2 = 4."


def test_completions_continue_a_text(text: EngineProcess, chat_model: Path) -> None:
    for prompt, more in json.loads((chat_model / "completions.json").read_text()).items():
        choice = text.post(COMPLETIONS, {"prompt": prompt, "temperature": 0}).json()["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == (more, "stop")
        events = text.events(COMPLETIONS, {"prompt": prompt, "temperature": 0})
        assert "".join(event["choices"][0]["text"] for event in events) == more
        assert {event["object"] for event in events} == {"text_completion"}


def test_completions_take_several_prompts_and_echo_them(text: EngineProcess) -> None:
    prompts = ["The quick brown fox", "Roses are red,"]
    body = {"prompt": prompts, "temperature": 0, "echo": True, "n": 2}
    choices = text.post(COMPLETIONS, body).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["text"] for choice in choices] == [
        "The quick brown fox jumps over the lazy dog.",
        "The quick brown fox jumps over the lazy dog.",
        "Roses are red, violets are blue.",
        "Roses are red, violets are blue.",
    ]


def test_n_streams_are_told_apart_by_index(text: EngineProcess) -> None:
    events = text.events(CHAT, chat("What is 2 + 2?", temperature=0, n=3))
    said = ["", "", ""]
    for event in events:
        choice = event["choices"][0]
        said[choice["index"]] += choice["delta"].get("content", "")
    assert said == ["2 + 2 = 4."] * 3


async def test_the_openai_client_understands_it(text: EngineProcess) -> None:
    transport = httpx2.AsyncHTTPTransport(uds=str(text.address))
    async with httpx2.AsyncClient(transport=transport) as http:
        client = openai.AsyncOpenAI(base_url="http://engine/v1", api_key="none", http_client=http)
        messages: Any = [{"role": "user", "content": "What is the capital of France?"}]
        whole = await client.chat.completions.create(model=text.name, messages=messages, temperature=0)
        assert whole.choices[0].message.content == "The capital of France is Paris."
        stream = await client.chat.completions.create(
            model=text.name, messages=messages, temperature=0, stream=True
        )
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(parts) == "The capital of France is Paris."
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model=text.name, messages=messages, modalities=["audio"])
        assert refused.value.code == "unsupported_parameter"
