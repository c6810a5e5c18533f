"""Holding an answer to a form: fixed texts and JSON objects, token by token.

A guide is a row of parts; each part is a choice of fixed texts or one free JSON object. It says which token
is forced, and whether a token may come next. Works on bytes, so a character split over tokens is no special
case. Must not choose between allowed tokens; sampling does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workers.engines.textgen.jsonform import OBJECT, JsonState, step

BLANKS = b" \t\r\n"
LONGEST_BLANK = 12


@dataclass(frozen=True)
class Words:
    """One of these texts."""

    options: tuple[bytes, ...]


@dataclass(frozen=True)
class AnyObject:
    """Any JSON object."""


Part = Words | AnyObject


class Vocabulary:
    """What each token is as bytes, and how a text is made of tokens."""

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self.pieces = token_bytes(tokenizer)
        self.end = min(ends) if ends else 0
        self._encode: Callable[..., list[int]] = tokenizer.encode

    def encode(self, text: bytes) -> list[int]:
        return self._encode(text.decode(), add_special_tokens=False)


class Guide:
    """The form of one answer and how far it has come."""

    def __init__(self, parts: Sequence[Part], vocabulary: Vocabulary) -> None:
        self._parts = list(parts)
        self._vocabulary = vocabulary
        self.end = vocabulary.end
        self._state: JsonState = OBJECT
        self._blank = 0

    def forced(self, row: Any) -> int | None:
        """The token that must come next: of a fixed text, or the end when everything is said."""
        if not self._parts:
            return self.end
        part = self._parts[0]
        if isinstance(part, AnyObject):
            return None
        heads = {self._vocabulary.encode(option)[0] for option in part.options}
        return max(heads, key=lambda token: float(row[token]))

    def accept(self, token: int) -> bool:
        """Go on by this token if it fits; say whether it did."""
        if not self._parts:
            return token == self.end
        piece = self._vocabulary.pieces.get(token)
        if not piece:
            return False
        part = self._parts[0]
        if isinstance(part, Words):
            return self._accept_words(part, piece)
        return self._accept_json(piece)

    def _accept_words(self, part: Words, piece: bytes) -> bool:
        rest = tuple(option[len(piece) :] for option in part.options if option.startswith(piece))
        if not rest:
            return False
        self._parts[0] = Words(rest)
        if b"" in rest:
            self._next_part()
        return True

    def _accept_json(self, piece: bytes) -> bool:
        state, blank = self._state, self._blank
        for position, byte in enumerate(piece):
            inside_text = bool(state) and state[-1][0] in "sku"
            blank = blank + 1 if byte in BLANKS and not inside_text else 0
            following = step(state, byte) if blank <= LONGEST_BLANK else None
            # An object that ends inside the token would leave bytes that belong to no part.
            if following is None or (following == () and position != len(piece) - 1):
                return False
            state = following
        self._state, self._blank = state, blank
        if not state:
            self._next_part()
        return True

    def _next_part(self) -> None:
        del self._parts[0]
        self._state, self._blank = OBJECT, 0


def token_bytes(tokenizer: Any) -> dict[int, bytes]:
    """The bytes of every ordinary token. Special tokens have none: no form contains them."""
    special = set(tokenizer.all_special_ids) | {
        number for number, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    alphabet = byte_alphabet()
    byte_level = "ByteLevel" in str(getattr(tokenizer.backend_tokenizer, "decoder", ""))
    pieces: dict[int, bytes] = {}
    for text, number in tokenizer.get_vocab().items():
        if number in special:
            continue
        if byte_level and all(character in alphabet for character in text):
            pieces[number] = bytes(alphabet[character] for character in text)
        elif len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            pieces[number] = bytes([int(text[3:5], 16)])
        else:
            pieces[number] = text.replace("\u2581", " ").encode()
    return pieces


def byte_alphabet() -> dict[str, int]:
    """The characters by which byte-level tokenizers write bytes: printable ones stand for themselves."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
