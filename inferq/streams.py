"""Folding a finished stream of chat or completion chunks into the object that the same call without `stream` gives."""

import json
from typing import Any


def fold(events: bytes) -> bytes:
    """The JSON answer that these server-sent events amount to. Events that are no chunks are passed over."""
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for line in events.split(b"\n"):
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line.removeprefix(b"data: "))
        for name in ("id", "created", "model", "system_fingerprint", "usage"):
            if chunk.get(name) is not None:
                answer[name] = chunk[name]
        answer["object"] = str(chunk.get("object", "")).removesuffix(".chunk")
        for part in chunk.get("choices", ()):
            _fold_choice(choices.setdefault(part.get("index", 0), {"index": part.get("index", 0)}), part)
    answer["choices"] = [_ended(choices[index]) for index in sorted(choices)]
    return json.dumps(answer, ensure_ascii=False).encode()


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
