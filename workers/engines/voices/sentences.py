"""Cutting a text into pieces that are spoken one after the other.

A piece ends where a sentence ends, in Latin and in CJK punctuation; one that is too long is cut at its clauses, else
at a space. Joined, the pieces are the text but for white space. Must not know any voice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST = 300

PARAGRAPH = re.compile(r"\n[ \t\r\f\v]*\n\s*")
# Marks that may end a sentence, with the quotes and brackets that close behind them.
END = re.compile(r"""([.!?…]+|[。！？；｡‼⁇⁈⁉؟।]+)(["'”’»)\]」』）】》]*)""")
CJK_END = frozenset("。！？；｡‼⁇⁈⁉")


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# After these a point never ends a sentence; after a single letter (an initial) neither.
TITLES = words(
    "mr mrs ms dr prof st sr jr gen col sgt capt lt rev hon messrs mme mlle vs cf fig figs vol pp ed eds "
    "approx dept est e.g i.e eg ie viz"
)
# Their point ends a sentence only where the next word is written large.
SHORT_WORDS = words(
    "etc inc ltd co corp al a.m p.m u.s u.k u.n d.c ph.d b.a m.a jan feb mar apr jun jul aug sep sept "
    "oct nov dec mon tue wed thu fri sat sun"
)
NUMBER_WORDS = words("no nos nr")
CLAUSE = re.compile(r"[,;:，、；：—–)）]\s*|\s-+\s")


def split(text: str, longest: int = LONGEST) -> list[str]:
    """The pieces of a text, each of at most `longest` characters and never empty."""
    pieces: list[str] = []
    for paragraph in PARAGRAPH.split(text):
        for sentence in whole(sentences(" ".join(paragraph.split()))):
            pieces += cut(sentence, longest)
    return pieces


def sentences(text: str) -> Iterator[str]:
    began = 0
    for mark in END.finditer(text):
        if ends(text, began, mark):
            yield text[began : mark.end()].strip()
            began = mark.end()
    yield text[began:].strip()


def ends(text: str, began: int, mark: re.Match[str]) -> bool:
    """Whether a mark ends the sentence that began there.

    1. a CJK mark does; 2. a Latin one only before a space or the end; 3. `!` and `?` then do, unless a small letter
    follows; 4. a point also depends on the word before it.
    """
    # The text has single spaces only, so the next word begins behind one.
    space, after = text[mark.end() : mark.end() + 1], text[mark.end() + 1 : mark.end() + 2]
    if mark[1][0] in CJK_END:  # 1
        return True
    if space not in ("", " "):  # 2
        return False
    if after.islower():  # 3
        return False
    if mark[1] != ".":
        return True
    return not abbreviated(text[began : mark.start()].strip(), after)  # 4


def abbreviated(before: str, after: str) -> bool:
    """Whether the point after `before` belongs to its last word."""
    last = before[before.rfind(" ") + 1 :].lstrip("\"'(“‘[")
    word = last.lower()
    initial = len(last) == 1 and last.isascii() and last.isupper() and last != "I"
    if word in TITLES or initial:
        return True
    if word in NUMBER_WORDS:
        return after.isdigit()
    # The number of a list item: nothing else stands before it.
    if word.isdigit() and last == before:
        return True
    return word in SHORT_WORDS and not after.isupper() and after != ""


def whole(pieces: Iterator[str]) -> Iterator[str]:
    """Joins a piece without a letter or digit (quotes, dashes, a lone mark) to the one before or after it."""
    held = ""
    for piece in pieces:
        if held and any(sign.isalnum() for sign in piece):
            if any(sign.isalnum() for sign in held):
                yield held
                held = piece
            else:
                held = f"{held} {piece}"
        else:
            held = f"{held} {piece}" if held and piece else held or piece
    if held:
        yield held


def cut(sentence: str, longest: int) -> list[str]:
    """A sentence in parts of at most `longest`: at the last clause of its second half, else a space, else anywhere."""
    parts = []
    while len(sentence) > longest:
        clauses = [mark.end() for mark in CLAUSE.finditer(sentence, longest // 2, longest)]
        space = sentence.rfind(" ", longest // 2, longest)
        at = clauses[-1] if clauses else space if space > 0 else longest
        parts.append(sentence[:at].strip())
        sentence = sentence[at:].strip()
    return [*parts, sentence] if sentence else parts
