"""From tokens to text that may be shown: whole characters only, and never a piece of a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workers.engines.textgen.token import Token

BROKEN = "\ufffd"
# A character has at most four bytes; after that many tokens broken bytes are what the model really said.
LONGEST_WAIT = 8


class Detokenizer:
    """Text of a growing list of tokens, given out as soon as its characters are whole."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0  # where decoding starts, so that a token sees its neighbour
        self._shown = 0  # tokens whose text was given out

    def push(self, token: int) -> str:
        self._ids.append(token)
        return self._show(final=False)

    def flush(self) -> str:
        return self._show(final=True)

    def _show(self, final: bool) -> str:
        if self._shown == len(self._ids):
            return ""
        text = self._decode(self._ids[self._context :])
        waits = text.endswith(BROKEN) and len(self._ids) - self._shown < LONGEST_WAIT
        if waits and not final:
            return ""
        before = self._decode(self._ids[self._context : self._shown])
        self._context, self._shown = self._shown, len(self._ids)
        return text[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


class StopCutter:
    """Lets text through, except the first stop text and what follows, or what may still become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        if self.stopped:
            return ""
        if not self._stops:
            return text
        self._held += text
        cut = min((at for at in map(self._held.find, self._stops) if at >= 0), default=-1)
        if cut >= 0:
            self.stopped = True
            shown, self._held = self._held[:cut], ""
            return shown
        keep = longest_overlap(self._held, self._stops)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        shown, self._held = self._held, ""
        return "" if self.stopped else shown


def longest_overlap(text: str, beginnings: Sequence[str]) -> int:
    """How many last characters of `text` are the beginning of one of `beginnings`."""
    best = 0
    for beginning in beginnings:
        for size in range(min(len(beginning) - 1, len(text)), best, -1):
            if text.endswith(beginning[:size]):
                best = size
                break
    return best


@dataclass
class Piece:
    """Text to show now, with the tokens it is made of."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None


class Speaker:
    """Turns the tokens of one answer into pieces of text, and says when it is over."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], ends: frozenset[int], limit: int) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._cutter = StopCutter(stops)
        self._ends = ends
        self._limit = limit
        self._waiting: list[tuple[int, Token]] = []  # tokens with the place where their text begins
        self._decoded = 0
        self._shown = 0
        self.count = 0

    def push(self, token: Token) -> Piece:
        self.count += 1
        over = token.id in self._ends
        text = ""
        if not over:
            self._waiting.append((self._decoded, token))
            text = self._detokenizer.push(token.id)
        finish = "stop" if over else "length" if self.count >= self._limit else None
        if finish:
            text += self._detokenizer.flush()
        self._decoded += len(text)
        shown = self._cutter.push(text)
        if self._cutter.stopped:
            finish = "stop"
        elif finish:
            shown += self._cutter.flush()
        return self._piece(shown, finish)

    def _piece(self, shown: str, finish: str | None) -> Piece:
        self._shown += len(shown)
        whole = finish is not None and not self._cutter.stopped
        ready = [token for start, token in self._waiting if whole or start < self._shown]
        self._waiting = [entry for entry in self._waiting if not (whole or entry[0] < self._shown)]
        return Piece(shown, ready, finish)
