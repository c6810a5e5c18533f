"""Folding a stream into the answer that the same call without `stream` gives."""

import json
from typing import Any

import pytest

from inferq.streams import fold, fold_chunks


def chunk(choices: list[Any], **more: Any) -> bytes:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
    return b"data: " + json.dumps(head | {"choices": choices} | more, ensure_ascii=False).encode() + b"\n\n"


def delta(content: Any = None, *, index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    parts = {"content": content, **more} if content is not None else more
    return {"index": index, "delta": parts, "finish_reason": finish}


def folded(*events: bytes) -> dict[str, Any]:
    return dict(json.loads(fold_chunks(b"".join(events) + b"data: [DONE]\n\n")))


def test_a_chat() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    answer = folded(
        chunk([delta("", role="assistant")]),
        chunk([delta("你")]),
        chunk([delta("好 🙂")]),
        chunk([delta(finish="stop")]),
        chunk([], usage=usage),
    )
    assert answer == {
        "id": "c1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "usage": usage,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "你好 🙂"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
    }


def test_several_choices_in_any_order() -> None:
    answer = folded(
        chunk([delta("b", index=1)]),
        chunk([delta("a", index=0), delta("B", index=1)]),
        chunk([delta(index=0, finish="stop"), delta(index=1, finish="length")]),
    )
    assert [c["message"]["content"] for c in answer["choices"]] == ["a", "bB"]
    assert [c["finish_reason"] for c in answer["choices"]] == ["stop", "length"]


def test_tool_calls_in_pieces() -> None:
    def call(index: int, **more: Any) -> bytes:
        return chunk([delta(tool_calls=[{"index": index, **more}])])

    answer = folded(
        chunk([delta("", role="assistant")]),
        call(0, id="x", type="function", function={"name": "look", "arguments": ""}),
        call(0, function={"arguments": '{"city": '}),
        call(1, id="y", type="function", function={"name": "wait", "arguments": "{}"}),
        call(0, function={"arguments": '"Paris"}'}),
        chunk([delta(finish="tool_calls")]),
    )
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "x", "type": "function", "function": {"name": "look", "arguments": '{"city": "Paris"}'}},
        {"id": "y", "type": "function", "function": {"name": "wait", "arguments": "{}"}},
    ]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "refusal"])
def test_other_texts_of_a_message(name: str) -> None:
    answer = folded(
        chunk([delta("", **{name: "be"})]), chunk([delta(**{name: "cause"})]), chunk([delta("x")])
    )
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "x", name: "because"}


def test_a_completion_and_its_logprobs() -> None:
    def part(text: str, finish: str | None, logprobs: Any) -> bytes:
        choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": logprobs}
        return chunk([choice], object="text_completion")

    answer = folded(
        part("a", None, {"tokens": ["a"], "token_logprobs": [-1.0]}),
        part(" b", "stop", {"tokens": [" b"], "token_logprobs": [-2.0]}),
    )
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "text": "a b",
            "logprobs": {"tokens": ["a", " b"], "token_logprobs": [-1.0, -2.0]},
            "finish_reason": "stop",
        }
    ]


def test_logprobs_of_a_chat() -> None:
    def spoken(text: str) -> dict[str, Any]:
        return delta(text) | {"logprobs": {"content": [{"token": text, "logprob": -0.5}], "refusal": None}}

    answer = folded(chunk([spoken("a")]), chunk([spoken("b")]))
    assert [entry["token"] for entry in answer["choices"][0]["logprobs"]["content"]] == ["a", "b"]


@pytest.mark.parametrize("chat", [True, False])
def test_an_answer_without_a_word_is_an_empty_text(chat: bool) -> None:
    if chat:
        answer = folded(chunk([delta("", role="assistant")]), chunk([delta(finish="stop")]))
        assert answer["choices"][0]["message"]["content"] == ""
    else:
        answer = folded(chunk([{"index": 0, "text": "", "finish_reason": "stop"}], object="text_completion"))
        assert answer["choices"][0]["text"] == ""


def test_what_is_no_chunk_is_passed_over() -> None:
    events = b": keep-alive\n\nevent: ping\ndata: 1\n\n" + chunk([delta("x")]).replace(b"\n", b"\r\n")
    assert folded(events)["choices"][0]["message"]["content"] == "x"
    assert json.loads(fold_chunks(b"")) == {"choices": []}


def test_text_that_looks_like_the_protocol() -> None:
    text = 'data: {"error": 1}\n\ndata: [DONE]\n\n'
    assert folded(chunk([delta(text)]))["choices"][0]["message"]["content"] == text


def test_a_tool_call_whose_turn_comes_late() -> None:
    calls = [{"index": 2, "id": "z", "function": {"name": "c", "arguments": "{}"}}]
    late = [{"index": index, "id": name, "function": {"name": name}} for index, name in ((0, "a"), (1, "b"))]
    answer = folded(chunk([delta(tool_calls=calls)]), chunk([delta(tool_calls=late)]))
    found = answer["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["name"] for call in found] == ["a", "b", "c"]


def lines(*events: dict[str, Any]) -> bytes:
    parts = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    return b"".join(parts) + b"data: [DONE]\n\n"


def test_a_transcription_is_what_its_last_event_carries() -> None:
    delta = {"type": "transcript.text.delta", "delta": "he"}
    done = {"type": "transcript.text.done", "text": "he", "response": {"text": "he"}}
    assert fold("audio/transcriptions", lines(delta, done)) == (b'{"text": "he"}', "application/json")
    subtitles = {**done, "response": "WEBVTT\n", "media_type": "text/vtt"}
    assert fold("audio/transcriptions", lines(delta, subtitles)) == (b"WEBVTT\n", "text/vtt")


def test_pictures_are_those_that_were_finished() -> None:
    partial = {"type": "image_generation.partial_image", "b64_json": "cGFydA=="}
    one = {
        "type": "image_generation.completed",
        "b64_json": "b25l",
        "seed": 1,
        "created_at": 5,
        "size": "8x8",
    }
    two = {**one, "b64_json": "dHdv", "seed": 2}
    data, media_type = fold("images/generations", lines(partial, one, two))
    assert media_type == "application/json"
    assert json.loads(data) == {
        "created": 5,
        "size": "8x8",
        "data": [{"b64_json": "b25l", "seed": 1}, {"b64_json": "dHdv", "seed": 2}],
    }


def test_the_newer_forms_are_what_their_last_event_carries() -> None:
    begun = {"type": "response.created", "response": {"status": "in_progress"}}
    done = {"type": "response.completed", "response": {"status": "completed"}}
    assert json.loads(fold("responses", lines(begun, done))[0]) == {"status": "completed"}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_was_thought_is_joined_beside_the_content(name: str) -> None:
    answer = folded(
        chunk([delta("", role="assistant")]),
        chunk([delta(**{name: "One, "})]),
        chunk([delta(**{name: "two."})]),
        chunk([delta("Three.")]),
        chunk([delta(finish="stop")]),
    )
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Three.", name: "One, two."}


def events_of(*found: dict[str, Any]) -> bytes:
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in found)


def block(index: int, kind: str, start: dict[str, Any], *deltas: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": kind, **start}},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def test_a_message_of_blocks() -> None:
    message = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "usage": {"input_tokens": 4},
    }
    events = events_of(
        {"type": "message_start", "message": message},
        *block(
            0, "thinking", {"thinking": ""}, *({"type": "thinking_delta", "thinking": text} for text in "ab")
        ),
        {"type": "ping"},
        *block(1, "text", {"text": ""}, *({"type": "text_delta", "text": text} for text in ("Hel", "lo"))),
        *block(
            2,
            "tool_use",
            {"id": "t", "name": "f", "input": {}},
            *({"type": "input_json_delta", "partial_json": text} for text in ('{"a"', ": 1}")),
        ),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    answer, media_type = fold("messages", events)
    assert media_type == "application/json"
    assert json.loads(answer) == {
        **message,
        "content": [
            {"type": "thinking", "thinking": "ab"},
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 4, "output_tokens": 9},
    }
