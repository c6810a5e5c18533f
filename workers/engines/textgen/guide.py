"""Holding an answer to a form, token by token.

A guide says which token is forced, and whether a token may come next. It works on bytes, so a character split over
tokens, or a token that ends one part and begins the next, is no special case. Must not choose between allowed tokens;
sampling does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from workers.engines.textgen.forms import Stack, State, Text, after, opened

SHORTEST_HEAD = 64
"""Bytes of a text that its first token is found in, where no token of the vocabulary is long."""


class Vocabulary:
    """What each token is as bytes, and how a text is made of tokens."""

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self.pieces = token_bytes(tokenizer)
        self.ends = ends
        self.end = min(ends) if ends else 0
        self._encode: Callable[..., list[int]] = tokenizer.encode
        self._head = max(SHORTEST_HEAD, 2 * max(map(len, self.pieces.values()), default=0))

    def first(self, text: bytes) -> int | None:
        """The token that a text begins with.

        None where the text may be one token, and where the tokenizer would write another text: one that composes
        characters, begins with a blank, or has a special token in it. Only the head of a text is looked at, for this is
        asked before each of its tokens; a cut so far away leaves the first one as it is.
        """
        tokens = self._encode(text[: self._head].decode(errors="ignore"), add_special_tokens=False)
        piece = self.pieces.get(tokens[0]) if len(tokens) > 1 else None
        return tokens[0] if piece and text.startswith(piece) else None


class Guide:
    """The form of one answer and how far it has come."""

    def __init__(self, ways: Iterable[Stack], vocabulary: Vocabulary) -> None:
        self._state: State = opened(ways)
        self._vocabulary = vocabulary
        self._next: dict[int, State] = {}
        self.end = vocabulary.end

    def forced(self, row: Any) -> int | None:
        """The token that must come next: of a fixed text, or the end when everything is said.

        The last token of a fixed text is not forced: the model may know one that reaches beyond it.
        """
        if self._state == {()}:
            return self.end
        heads = set()
        for stack in self._state:
            top = stack[-1] if stack else None
            rest = whole_characters(top.rest) if isinstance(top, Text) else b""
            token = self._vocabulary.first(rest) if rest else None
            if token is None:
                return None
            heads.add(token)
        return max(heads, key=lambda token: float(row[token])) if heads else None

    def accept(self, token: int) -> bool:
        """Go on by this token if it fits; say whether it did."""
        if token in self._vocabulary.ends or token == self.end:
            return any(not stack or stack[-1].may_end for stack in self._state)
        piece = self._vocabulary.pieces.get(token)
        if not piece:
            return False
        state = self._first(piece[0])
        for byte in piece[1:]:
            if not state:
                return False
            state = after(state, byte)
        if not state:
            return False
        self._state, self._next = state, {}
        return True

    def _first(self, byte: int) -> State:
        """The state after the first byte of a token: most tokens of a vocabulary end there."""
        if byte not in self._next:
            self._next[byte] = after(self._state, byte)
        return self._next[byte]


def whole_characters(text: bytes) -> bytes:
    """Nothing, where a text begins inside a character: such a rest has no tokens of its own."""
    return b"" if text[:1] and 0x80 <= text[0] < 0xC0 else text


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
