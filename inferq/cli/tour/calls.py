"""The interactive stops: chat, stream, tool call, embeddings."""

import json
import math
import time
from collections.abc import Sequence
from typing import Any

from inferq import errors
from inferq.cli import answer, output
from inferq.cli.tour.stop import CHAT_MODEL, EMBED_MODEL, fail, hold, request, tell
from inferq.client import Client

_WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The name of the city"}},
            "required": ["city"],
        },
    },
}
_LINE = 100
"""Columns that an answer flows over; a pipe has no width of its own."""
_ALIKE = ("The cat sleeps on the sofa.", "A kitten is napping on the couch.")
_UNLIKE = "It will rain tomorrow."


def require_demo_models(client: Client) -> None:
    """Raises ModelNotFound where the tour cannot be given."""
    here = {model["id"] for model in client.models()}
    absent = {CHAT_MODEL, EMBED_MODEL} - here
    if absent:
        raise errors.ModelNotFound(
            f"the tour uses the models demo-chat and demo-embed; this server lacks {' and '.join(sorted(absent))}"
        )


def chat(client: Client) -> str:
    prompt = "What is the capital of France?"
    tell(f"> {prompt}")
    began = time.monotonic()
    reply = client.call("chat/completions", request(prompt))
    text = answer.text_of(reply)
    tell(text, "bold")
    hold("Paris" in text, "the answer is not the one that the model was taught")
    return f"answered in {_milliseconds(began)}, {reply['usage']['completion_tokens']} tokens"


def stream(client: Client) -> str:
    prompt = "Tell me a story."
    tell(f"> {prompt}")
    began = time.monotonic()
    first, pieces, line = 0.0, [], 0
    for chunk in client.stream("chat/completions", request(prompt)):
        text = answer.piece(chunk)
        if text:
            first = first or time.monotonic() - began
            pieces.append(text)
            line = _flow(text, line)
    output.console.print()
    hold("".join(pieces).rstrip().endswith("The end."), "the stream ended before its end")
    hold(len(pieces) > 1, "the answer came in one piece")
    return f"first piece after {first * 1000:.0f} ms, {len(pieces)} pieces in {_milliseconds(began)}"


def tool_call(client: Client) -> str:
    prompt = "What is the weather in Paris?"
    tell(f"> {prompt}   (tools: get_weather)")
    choice = client.call("chat/completions", {**request(prompt), "tools": [_WEATHER]})["choices"][0]
    calls = choice["message"].get("tool_calls") or fail(
        f"no tool was called; the model said {choice['message']}"
    )
    function = calls[0]["function"]
    tell(f"{function['name']}({function['arguments']})", "bold")
    hold(function["name"] == "get_weather", "another function was called")
    hold("Paris" in json.loads(function["arguments"]).values(), "the argument is not Paris")
    return f"finish_reason {choice['finish_reason']}"


def embeddings(client: Client) -> str:
    texts = [*_ALIKE, _UNLIKE]
    data = client.call("embeddings", {"model": EMBED_MODEL, "input": texts})["data"]
    one, two, other = (item["embedding"] for item in data)
    near, far = _cosine(one, two), _cosine(one, other)
    tell(f"{near:5.2f}  {_ALIKE[0]}  ~  {_ALIKE[1]}")
    tell(f"{far:5.2f}  {_ALIKE[0]}  ~  {_UNLIKE}")
    hold(near > far, "sentences that mean the same are not nearer to each other")
    return f"{len(texts)} vectors of {len(one)} numbers"


def _flow(piece: str, column: int) -> int:
    """Write a piece of text where the last one ended, and begin a line at the spaces. Returns the new column."""
    if column == 0 or (piece.startswith(" ") and column + len(piece) > min(output.console.width, _LINE) - 3):
        start = "\n   " if column else "   "
        piece = piece.lstrip()
        column = 3
        output.console.out(start, end="")
    output.console.out(piece, end="", style="bold")
    return column + len(piece)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def _milliseconds(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f} ms"
