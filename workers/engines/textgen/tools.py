"""Tool calls as hermes-style models write them: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.

Splits growing text into content and calls. A call's name goes out as soon as it is known and its arguments
as they come, exactly as written. Text that looks like a call and is not one is given back as content.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass

from workers.engines.textgen.jsonform import OBJECT, JsonState, step
from workers.engines.textgen.output import longest_overlap

OPEN, CLOSE = "<tool_call>", "</tool_call>"
HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')


@dataclass(frozen=True)
class CallDelta:
    """A piece of one call; `name` and `id` come with its first piece."""

    index: int
    arguments: str
    name: str | None = None
    id: str | None = None


class CallParser:
    """One answer's text, split. Feed it with `push`, end it with `flush`."""

    def __init__(self) -> None:
        self.calls = 0
        self.closed = 0
        self._text = ""
        self._mode = "content"
        self._json: JsonState = OBJECT
        self._spaces = ""

    def push(self, text: str) -> list[str | CallDelta]:
        self._text += text
        deltas: list[str | CallDelta] = []
        modes = {
            "content": self._content,
            "head": self._head,
            "arguments": self._arguments,
            "tail": self._tail,
        }
        while modes[self._mode](deltas):
            pass
        return deltas

    def flush(self) -> list[str | CallDelta]:
        """What is left when the answer ended: an unfinished call that never had a name is content."""
        text = {"content": self._spaces + self._text, "head": self._spaces + OPEN + self._text}.get(
            self._mode, ""
        )
        self._text = self._spaces = ""
        shown = text if self.calls == 0 or text.strip() else ""
        return [shown] if shown else []

    def _content(self, deltas: list[str | CallDelta]) -> bool:
        before, tag, after = self._text.partition(OPEN)
        if tag:
            self._show(before, deltas)
            self._mode, self._text = "head", after
            return True
        keep = longest_overlap(self._text, (OPEN,))
        self._show(self._text[: len(self._text) - keep], deltas)
        self._text = self._text[len(self._text) - keep :]
        return False

    def _show(self, text: str, deltas: list[str | CallDelta]) -> None:
        """Content goes out, but white space waits: before or between calls it means nothing."""
        text = self._spaces + text
        body = text.rstrip()
        self._spaces = text[len(body) :]
        if body:
            deltas.append(body)

    def _head(self, deltas: list[str | CallDelta]) -> bool:
        match = HEAD.match(self._text)
        if match:
            name = json.loads(match[1])
            deltas.append(CallDelta(self.calls, "", name, f"call_{uuid.uuid4().hex[:24]}"))
            self.calls += 1
            self._spaces = ""
            self._mode, self._text, self._json = "arguments", self._text[match.end() :], OBJECT
            return True
        inside, tag, after = self._text.partition(CLOSE)
        if not tag:
            return False
        self._mode, self._text = "content", after
        deltas.extend(self._whole(inside))
        self.closed = self.calls
        return True

    def _whole(self, inside: str) -> list[str | CallDelta]:
        """A call in another order of fields, or no call at all."""
        try:
            call = json.loads(inside)
            name, arguments = call["name"], call.get("arguments", {})
        except (ValueError, TypeError, KeyError, AttributeError):
            spaces, self._spaces = self._spaces, ""
            return [spaces + OPEN + inside + CLOSE]
        self.calls += 1
        self._spaces = ""
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return [CallDelta(self.calls - 1, written, str(name), f"call_{uuid.uuid4().hex[:24]}")]

    def _arguments(self, deltas: list[str | CallDelta]) -> bool:
        taken = 0
        for character in self._text:
            for byte in character.encode("utf-8", "surrogatepass"):
                self._json = step(self._json, byte) or ()
            taken += 1
            if not self._json:  # whole, or no JSON any more: either way nothing more can belong to it
                break
        if taken:
            deltas.append(CallDelta(self.calls - 1, self._text[:taken]))
            self._text = self._text[taken:]
        if self._json:
            return False
        self._mode = "tail"
        return True

    def _tail(self, deltas: list[str | CallDelta]) -> bool:
        _, tag, after = self._text.partition(CLOSE)
        if not tag:
            return False
        self._mode, self._text = "content", after
        self.closed = self.calls
        return True
