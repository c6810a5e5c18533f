"""What a model thinks before it answers, told apart from the answer by the tags around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workers.engines.textgen.output import longest_overlap


@dataclass(frozen=True)
class Tags:
    """The texts before and after what is thought."""

    start: str
    end: str


@dataclass(frozen=True)
class Thought:
    """A piece of what is thought."""

    text: str


def read_tags(value: Any, special: set[str]) -> Tags | None:
    """The option `reasoning`. Raises ValueError; also for tags that are never in the text, being special tokens."""
    if value is None:
        return None
    found = value if isinstance(value, dict) else {}
    tags = [tag for tag in (found.get("start"), found.get("end")) if isinstance(tag, str) and tag]
    if len(found) != 2 or len(tags) != 2:
        raise ValueError("option reasoning: write {start: '<think>', end: '</think>'}")
    hidden = special.intersection(tags)
    if hidden:
        raise ValueError(
            f"option reasoning: {', '.join(sorted(hidden))} is a special token, which texts leave out"
        )
    return Tags(*tags)


class ThinkingParser:
    """Splits one answer. `begun` says that the prompt ended with the first tag, as some templates do."""

    def __init__(self, tags: Tags, begun: bool) -> None:
        self._tags = tags
        self._text = ""
        self._mode = "thinking" if begun else "before"
        self._fresh = True

    def push(self, text: str) -> list[str | Thought]:
        """What is known of the text so far, as thoughts and as pieces of the answer."""
        self._text += text
        pieces: list[str | Thought] = []
        if self._mode == "before":
            self._before()
        if self._mode == "thinking":
            self._thinking(pieces)
        if self._mode == "answer":
            self._show(pieces)
        return pieces

    def flush(self) -> list[str | Thought]:
        """What is left when the answer ended."""
        rest, self._text = self._text, ""
        if not rest:
            return []
        return [Thought(rest)] if self._mode == "thinking" else [rest]

    def _before(self) -> None:
        """Only what an answer begins with is thinking: later tags are words of the answer."""
        bare = self._text.lstrip()
        if bare.startswith(self._tags.start):
            self._mode, self._text = "thinking", bare[len(self._tags.start) :]
        elif not self._tags.start.startswith(bare):
            self._mode, self._fresh = "answer", False

    def _thinking(self, pieces: list[str | Thought]) -> None:
        """Blanks at either end of a thought are its form, not its words."""
        if self._fresh:
            self._text = self._text.lstrip()
            self._fresh = not self._text
        thought, tag, rest = self._text.partition(self._tags.end)
        if tag:
            shown, self._text, self._mode, self._fresh = thought.rstrip(), rest, "answer", True
        else:
            held = longest_overlap(thought, (self._tags.end,))
            shown = thought[: len(thought) - held].rstrip()
            self._text = thought[len(shown) :]
        if shown:
            pieces.append(Thought(shown))

    def _show(self, pieces: list[str | Thought]) -> None:
        if self._fresh:
            self._text = self._text.lstrip()
            self._fresh = not self._text
        if self._text:
            pieces.append(self._text)
            self._text = ""
