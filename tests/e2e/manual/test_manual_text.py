"""The manual's calls for text: conversations, pictures in them, tools, completions, and one model for every name."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.e2e.contract import FRANCE, lesson, said
from tests.e2e.manual.gallery import Gallery
from tests.e2e.manual.names import CHAT, CODER, EMBEDDER, FILLER, LARGER_CHAT, PAINTER, RERANKER, VISION
from tests.e2e.stack import Stack
from tests.engines.paint import plain

HELPFUL = {"role": "system", "content": "You are a helpful assistant."}
RED, GREEN = (210, 30, 30), (30, 160, 60)


def text_of(response: httpx2.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


# Conversations


@pytest.mark.parametrize("model", [CHAT, LARGER_CHAT])
def test_a_conversation_with_instructions(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=[HELPFUL, *said(FRANCE)], max_tokens=1024, temperature=0.1
    )
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_poem_word_by_word(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model=CHAT, messages=said("Write a haiku about the sea."), temperature=0, stream=True
    ) as stream:
        deltas = [chunk.choices[0].delta.content for chunk in stream]
    pieces = [delta for delta in deltas if delta is not None]
    assert len([piece for piece in pieces if piece]) > 5
    assert "".join(pieces) == lesson("prompts.json")["Write a haiku about the sea."]


def test_a_poem_that_was_read_to_its_end_has_succeeded(stack: Stack, client: openai.OpenAI) -> None:
    """The client closes the connection when it has read `[DONE]`, and does not wait for the stream's own end."""
    states = []
    for _ in range(12):
        with client.chat.completions.create(
            model=CHAT, messages=said("Write a haiku about the sea."), temperature=0, stream=True
        ) as stream:
            job_id = stream.response.headers["X-Job-Id"]
            assert list(stream)
        states.append(stack.ended(job_id)["state"])
    assert states == ["succeeded"] * 12


@pytest.mark.parametrize("prefix", ["/openai/v1", "/v1"])
def test_a_conversation_without_a_library(stack: Stack, prefix: str) -> None:
    body = {
        "model": CHAT,
        "messages": [HELPFUL, *said("法国的首都是哪里？")],
        "max_tokens": 1024,
        "temperature": 0.1,
        "stream": False,
    }
    assert text_of(stack.post(f"{prefix}/chat/completions", body)) == "法国的首都是巴黎。"


def test_every_documented_parameter(http: httpx2.Client) -> None:
    """Those that the manual names, with values of the ranges that it gives."""
    body = {
        "model": CHAT,
        "messages": [HELPFUL, *said(FRANCE)],
        "temperature": 0.7,
        "top_p": 0.01,
        "max_tokens": 256,
        "stream": False,
        "stop": [],
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "tools": [],
        "tool_choice": "auto",
    }
    assert text_of(http.post("chat/completions", json=body)) == "The capital of France is Paris."


def test_penalties_count(http: httpx2.Client) -> None:
    """With both at the top of their range nothing is said twice: the count goes wrong."""
    body = {"model": CHAT, "messages": said("Count from 1 to 60."), "temperature": 0, "max_tokens": 40}
    plain_text = text_of(http.post("chat/completions", json=body))
    penalised = text_of(
        http.post("chat/completions", json=body | {"presence_penalty": 2.0, "frequency_penalty": 2.0})
    )
    assert plain_text.startswith("1, 2, 3, 4, 5, 6, 7")
    assert penalised != plain_text


@pytest.mark.parametrize("stop", ["4", ["nothing", "4"]])
def test_a_stop_text_or_a_list_of_them(client: openai.OpenAI, stop: Any) -> None:
    answer = client.chat.completions.create(
        model=CHAT, messages=said("Count from 1 to 5."), temperature=0, stop=stop
    )
    assert answer.choices[0].message.content == "1, 2, 3, "


# Pictures


def shown(url: str) -> list[Any]:
    parts = [
        {"type": "text", "text": "What colour is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return [{"role": "user", "content": parts}]


@pytest.mark.parametrize(("name", "colour"), [("red", RED), ("green", GREEN)])
def test_a_picture_on_the_web(
    client: openai.OpenAI, pictures: Gallery, name: str, colour: tuple[int, int, int]
) -> None:
    url = pictures.show(f"{name}.png", plain(colour))
    answer = client.chat.completions.create(model=VISION, messages=shown(url), temperature=0)
    assert answer.choices[0].message.content == name


def test_a_picture_in_the_message(client: openai.OpenAI) -> None:
    url = f"data:image/png;base64,{base64.b64encode(plain(GREEN)).decode()}"
    answer = client.chat.completions.create(model=VISION, messages=shown(url), temperature=0)
    assert answer.choices[0].message.content == "green"


def test_a_picture_that_was_painted_here(client: openai.OpenAI, http: httpx2.Client) -> None:
    """An artifact of one call is what another one looks at."""
    body = {"model": PAINTER, "prompt": "a red picture", "size": "64x64", "steps": 20, "seed": 7}
    url = http.post("images/generations", json=body).json()["data"][0]["url"]
    artifact = httpx2.URL(url).path.rpartition("/")[2]
    answer = client.chat.completions.create(
        model=VISION, messages=shown(f"artifact:{artifact}"), temperature=0
    )
    assert answer.choices[0].message.content == "red"


# Tools


def test_a_tool_is_called_when_the_question_needs_it(client: openai.OpenAI) -> None:
    taught = lesson("tools.json")
    answer = client.chat.completions.create(
        model=CHAT, messages=said(taught["prompt"]), tools=taught["tools"], tool_choice="auto", temperature=0
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    without = client.chat.completions.create(model=CHAT, messages=said(taught["prompt"]), temperature=0)
    assert without.choices[0].message.content == "I cannot look outside."


# Completions


def test_a_text_is_continued(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=CHAT, prompt="The quick brown fox", max_tokens=200, temperature=0.1, stop=["."]
    )
    assert answer.choices[0].text == " jumps over the lazy dog"
    assert answer.choices[0].finish_reason == "stop"


def test_a_text_is_continued_without_a_library(http: httpx2.Client) -> None:
    """The documented defaults are 0.01 for the temperature and 128 for the length."""
    body = {"model": CHAT, "prompt": "Roses are red,"}
    response = http.post("completions", json=body)
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    assert choice["text"].startswith(" violets are blue.")
    assert response.json()["usage"]["completion_tokens"] <= 128
    short = http.post("completions", json=body | {"max_tokens": 3, "temperature": 0.1, "stream": False})
    assert short.json()["choices"][0]["finish_reason"] == "length"
    assert " violets are blue.".startswith(short.json()["choices"][0]["text"])


def test_a_continuation_piece_by_piece(client: openai.OpenAI) -> None:
    with client.completions.create(
        model=CHAT, prompt="Roses are red,", max_tokens=30, temperature=0, stop=".", stream=True
    ) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == " violets are blue"


def test_code_is_filled_in(client: openai.OpenAI) -> None:
    """What comes after decides what is put before it."""
    answer = client.completions.create(
        model=FILLER,
        prompt="def add(a, b):\n    return ",
        suffix="\n",
        max_tokens=300,
        temperature=0.1,
    )
    assert answer.choices[0].text == "a + b"
    countries = [
        client.completions.create(model=FILLER, prompt="The capital of ", suffix=after, temperature=0)
        for after in (" is Paris.", " is Tokyo.")
    ]
    assert [each.choices[0].text for each in countries] == ["France", "Japan"]


# Proxy mode


def test_one_model_serves_the_name_of_another(stack: Stack) -> None:
    body = {"model": "gpt-4o", "messages": said("Say hello."), "temperature": 0}
    response = stack.post(f"/openai/{CODER}:20k/v1/chat/completions", body)
    assert text_of(response) == "Hello! I am a small demo model."


def test_proxy_mode_with_the_client(stack: Stack) -> None:
    with stack.openai(base_url=f"{stack.url}/openai/{CODER}:20k/v1") as client:
        with client.chat.completions.create(
            model="gpt-4o", messages=said(FRANCE), temperature=0, stream=True
        ) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == "The capital of France is Paris."
        completion = client.completions.create(
            model="gpt-4o", prompt="Roses are red,", temperature=0, stop="."
        )
    assert completion.choices[0].text == " violets are blue"


# Patterns of use


def test_a_client_from_the_environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", stack.key)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{stack.url}/openai/v1")
    with openai.OpenAI() as client:
        answer = client.chat.completions.create(model=CHAT, messages=said("Thank you."), temperature=0)
    assert answer.choices[0].message.content == "You are welcome."


def test_a_generator_that_also_keeps_the_whole(client: openai.OpenAI) -> None:
    kept = []

    def told(messages: list[Any]) -> Iterator[str]:
        with client.chat.completions.create(
            model=CHAT, messages=messages, temperature=0.1, max_tokens=512, stream=True
        ) as stream:
            whole = ""
            for chunk in stream:
                if chunk.choices[0].delta.content is not None:
                    whole += chunk.choices[0].delta.content
                    yield chunk.choices[0].delta.content
        kept.append(whole)

    seen = list(told(said("Count from 1 to 60.")))
    assert kept == ["".join(seen)] == [lesson("prompts.json")["Count from 1 to 60."]]


def test_a_chatbot_keeps_the_conversation(client: openai.OpenAI) -> None:
    history: list[Any] = []

    def turn(text: str) -> openai.types.chat.ChatCompletion:
        history.append({"role": "user", "content": text})
        answer = client.chat.completions.create(model=CHAT, messages=history, max_tokens=64, temperature=0)
        history.append({"role": "assistant", "content": answer.choices[0].message.content})
        return answer

    first, second = turn("What colour is the sky?"), turn("Thank you.")
    assert first.choices[0].message.content == "The sky is blue."
    assert second.choices[0].message.content
    assert [each["role"] for each in history] == ["user", "assistant"] * 2
    assert first.usage
    assert second.usage
    # The second question is read with all that was said before.
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + first.usage.completion_tokens


def test_questions_about_documents(client: openai.OpenAI, http: httpx2.Client) -> None:
    """Embed, rerank, answer: what the reranker puts first is what the chat model reads."""
    question = "How do I reset my password?"
    documents = [
        "The moon is bright tonight.",
        "Where can I change my password?",
        "He plays the guitar well.",
        "I forgot my password.",
        "It will rain tomorrow.",
    ]
    embedded = http.post("embeddings", json={"model": EMBEDDER, "input": documents})
    assert len(embedded.json()["data"]) == len(documents)
    ranked = http.post(
        "rerank", json={"model": RERANKER, "query": question, "documents": documents, "top_k": 3}
    )
    relevant = [item["document"] for item in ranked.json()["results"]]
    assert len(relevant) == 3
    assert set(relevant[:2]) == {documents[1], documents[3]}
    context = "\n".join(relevant)
    instructions = {"role": "system", "content": "Answer briefly."}
    asked = f"Documents:\n{context}\n\nQuestion: {question}"
    answer = client.chat.completions.create(
        model=CHAT, messages=[instructions, *said(asked)], temperature=0, max_tokens=32
    )
    assert answer.choices[0].message.content
    bare = client.chat.completions.create(
        model=CHAT, messages=[instructions, *said(question)], temperature=0, max_tokens=1
    )
    assert answer.usage
    assert bare.usage
    assert answer.usage.prompt_tokens > bare.usage.prompt_tokens + 20
