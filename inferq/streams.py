"""Folding a finished stream into the answer that the same call without `stream` gives."""

import json
from collections.abc import Iterator
from typing import Any

JSON = "application/json"


def fold(endpoint: str, events: bytes) -> tuple[bytes, str]:
    """The answer that these server-sent events amount to, and its media type.

    1. Text in chunks; 2. an event that carries the whole answer as `response` (`responses`, transcriptions);
    3. a message in blocks; 4. pictures, each in an event of its own; 5. sound in pieces.
    """
    if endpoint in ("chat/completions", "completions"):
        return fold_chunks(events), JSON
    found = [event for event in _objects(events) if isinstance(event, dict)]
    for event in reversed(found):
        if "response" in event:
            return _response(event)
    if endpoint == "messages":
        return _dumped(_message(found)), JSON
    if endpoint.startswith("images/"):
        return _dumped(_pictures(found)), JSON
    if endpoint == "audio/speech":
        parts = [event["audio"] for event in found if event.get("type") == "speech.audio.delta"]
        return _dumped({"object": "speech", "audio": parts}), JSON
    return _dumped({"object": "list", "data": found}), JSON


def _response(event: dict[str, Any]) -> tuple[bytes, str]:
    answer = event["response"]
    if isinstance(answer, str):
        return answer.encode(), event.get("media_type", "text/plain")
    return _dumped(answer), JSON


def _message(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Anthropic's message from its beginning, its blocks, and what is known at its end."""
    message: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    for event in found:
        delta = event.get("delta") or {}
        if event.get("type") == "message_start":
            message = dict(event["message"])
        elif event.get("type") == "content_block_start":
            blocks[event["index"]] = dict(event["content_block"])
        elif event.get("type") == "content_block_delta":
            _grow(blocks.setdefault(event["index"], {}), delta)
        elif event.get("type") == "message_delta":
            message |= delta
            message["usage"] = {**(message.get("usage") or {}), **(event.get("usage") or {})}
    message["content"] = [_whole_block(blocks[index]) for index in sorted(blocks)]
    return message


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    """Texts, thoughts, and the arguments of a tool, each under its own name."""
    for name, text in delta.items():
        if name != "type" and isinstance(text, str):
            block[name] = (block.get(name) or "") + text


def _whole_block(block: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a tool come as pieces of JSON and are an object in the end."""
    written = block.pop("partial_json", None)
    if written:
        try:
            block["input"] = json.loads(written)
        except ValueError:
            block["input"] = {"partial_json": written}
    return block


def _pictures(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The images object of a stream's finished pictures."""
    done = [event for event in found if str(event.get("type", "")).endswith(".completed")]
    first = done[0] if done else {}
    kept: dict[str, Any] = {
        name: first[name] for name in ("size", "output_format", "background", "quality") if name in first
    }
    entries = [{name: event[name] for name in ("b64_json", "seed") if name in event} for event in done]
    return {"created": first.get("created_at"), **kept, "data": entries}


def _objects(events: bytes) -> Iterator[Any]:
    for line in events.split(b"\n"):
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def fold_chunks(events: bytes) -> bytes:
    """The JSON answer of a stream of chat or completion chunks. Events that are no chunks are passed over."""
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in _objects(events):
        for name in ("id", "created", "model", "system_fingerprint", "usage"):
            if chunk.get(name) is not None:
                answer[name] = chunk[name]
        answer["object"] = str(chunk.get("object", "")).removesuffix(".chunk")
        for part in chunk.get("choices", ()):
            _fold_choice(choices.setdefault(part.get("index", 0), {"index": part.get("index", 0)}), part)
    answer["choices"] = [_ended(choices[index]) for index in sorted(choices)]
    return _dumped(answer)


def _fold_choice(choice: dict[str, Any], part: dict[str, Any]) -> None:
    if part.get("finish_reason") is not None:
        choice["finish_reason"] = part["finish_reason"]
    if part.get("text") is not None:
        choice["text"] = choice.get("text", "") + part["text"]
    if part.get("logprobs"):
        _fold_logprobs(choice, part["logprobs"])
    delta = part.get("delta")
    if delta is None:
        return
    message = choice.setdefault("message", {"role": "assistant", "content": None})
    for name, text in delta.items():
        if name != "role" and text and isinstance(text, str):
            message[name] = (message.get(name) or "") + text
    for call in delta.get("tool_calls") or ():
        _fold_call(message.setdefault("tool_calls", []), call)


def _fold_logprobs(choice: dict[str, Any], logprobs: dict[str, Any]) -> None:
    whole = choice.setdefault("logprobs", {})
    for name, values in logprobs.items():
        if isinstance(values, list):
            whole.setdefault(name, []).extend(values)


def _fold_call(calls: list[dict[str, Any]], part: dict[str, Any]) -> None:
    index = part.get("index", len(calls))
    while len(calls) <= index:
        calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[index]
    if part.get("id"):
        call["id"] = part["id"]
    for name in ("name", "arguments"):
        call["function"][name] += (part.get("function") or {}).get(name) or ""


def _ended(choice: dict[str, Any]) -> dict[str, Any]:
    """The choice with the fields that an answer always has; a message without words or calls is an empty text."""
    message = choice.get("message")
    if message and not message["content"] and "tool_calls" not in message:
        message["content"] = ""
    return {"logprobs": None, "finish_reason": None, **choice}


def unfold(endpoint: str, answer: bytes) -> bytes | None:
    """The events of a stream that amounts to this answer of text, its words in one piece; None for other endpoints."""
    if endpoint not in ("chat/completions", "completions"):
        return None
    whole = json.loads(answer)
    chunk = {name: value for name, value in whole.items() if name not in ("choices", "usage")}
    if endpoint == "chat/completions":
        chunk["object"] = f"{whole.get('object', 'chat.completion')}.chunk"
    choices = [_as_part(choice) for choice in whole.get("choices", ())]
    events = [{**chunk, "choices": choices}]
    if whole.get("usage") is not None:
        events.append({**chunk, "choices": [], "usage": whole["usage"]})
    return b"".join(b"data: %b\n\n" % _dumped(event) for event in events) + b"data: [DONE]\n\n"


def _as_part(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice of an answer as one of a chunk, where calls of tools carry their index."""
    part = {name: value for name, value in choice.items() if name != "message"}
    message = choice.get("message")
    if message is not None:
        calls = [{"index": index, **call} for index, call in enumerate(message.get("tool_calls") or ())]
        part["delta"] = {**message, "tool_calls": calls} if calls else message
    return part
