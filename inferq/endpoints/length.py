"""How long prompts are in tokens, before anybody has tokenised them: a guess, and bounds. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_CHARACTERS_PER_TOKEN = 4
_PART = 512
"""Tokens of an image, a sound or another part that is not text."""
_NUMBER = 8
"""Tokens that a number, true, false or null may have where it is written out."""
TEMPLATE = 32
"""Tokens that a template may put around a message, or around all of them."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What has to fit into a context, together with an answer of `answer` tokens; `param` is what its caller calls it.

    The model reads at least `texts` and `ids` tokens that came as numbers, and at most `most` tokens.
    """

    param: str
    texts: tuple[str, ...]
    most: int
    ids: int = 0
    answer: int = 0


def tokens_of(value: Any) -> float:
    """A guess at the tokens of a text, of token ids, of a message with its parts, or of a list of these."""
    total, rest = 0.0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item) / _CHARACTERS_PER_TOKEN
        elif isinstance(item, list):
            if are_ids(item):
                total += len(item)
            else:
                rest += item
        elif isinstance(item, dict):
            inner = _inner(item)
            if inner is not None:
                rest.append(inner)
            elif "role" not in item:
                total += _PART
        else:
            total += 1.0
    return total


def are_ids(value: list[Any]) -> bool:
    """Whether a list holds whole numbers only. There may be a million, so no line of Python runs for each."""
    return set(map(type, value)) == {int}


def texts_of(value: Any) -> Iterator[str]:
    """The texts of a message, of its parts, or of a list of these, in no order."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            rest += item
        elif isinstance(item, dict):
            rest.append(_inner(item))


def _inner(item: dict[str, Any]) -> Any:
    """The text of a part, or the content of a message; None where there is neither."""
    for name in ("text", "content"):
        if isinstance(item.get(name), str | list):
            return item[name]
    return None


def most_tokens(value: Any) -> int:
    """Tokens that the texts in a value cannot have more of: one per byte."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    total, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item) if item.isascii() else len(item.encode(errors="replace"))
        elif isinstance(item, dict):
            rest += item
            rest += item.values()
        elif isinstance(item, list):
            if are_ids(item):
                total += _NUMBER * len(item)
            else:
                rest += item
        else:
            total += _NUMBER
    return total


def plain(param: str, value: Any, answer: int = 0) -> Iterator[Prompt]:
    """The prompts of a text, of texts, of token ids, or of lists of these."""
    if isinstance(value, str):
        yield Prompt(param, (value,), most_tokens(value), 0, answer)
    elif value and isinstance(value[0], int):
        yield Prompt(param, (), len(value), len(value), answer)
    else:
        for place, item in enumerate(value):
            yield from plain(f"{param}[{place}]", item, answer)
