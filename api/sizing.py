"""How big a request is, in tokens, before anybody has tokenised it. A guess; the queue corrects it by what
it learns."""

from typing import Any

_CHARACTERS_PER_TOKEN = 4
_ANSWER = 256
"""Tokens of an answer whose length the caller left open."""
_PART = 512
"""Tokens of an image, a sound or another part that is not text."""


def units_of(endpoint: str, body: dict[str, Any], context: int | None) -> float:
    """Prompt and answer of one job in tokens, at least 1."""
    if endpoint == "embeddings":
        return max(1.0, _tokens(body.get("input")))
    prompt = _messages(body["messages"]) if endpoint == "chat/completions" else _tokens(body.get("prompt"))
    asked = body.get("max_completion_tokens") or body.get("max_tokens") or min(_ANSWER, context or _ANSWER)
    return max(1.0, prompt + asked * (body.get("n") or 1))


def _tokens(value: Any) -> float:
    """Tokens of a text, of token ids, or of a list of either."""
    if isinstance(value, str):
        return len(value) / _CHARACTERS_PER_TOKEN
    if isinstance(value, list):
        return sum(_tokens(item) for item in value)
    return 1.0


def _messages(messages: list[dict[str, Any]]) -> float:
    total = 0.0
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            total += len(content) / _CHARACTERS_PER_TOKEN
        elif isinstance(content, list):
            total += sum(_part(part) for part in content)
    return total


def _part(part: dict[str, Any]) -> float:
    text = part.get("text")
    return len(text) / _CHARACTERS_PER_TOKEN if isinstance(text, str) else _PART
