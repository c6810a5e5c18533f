"""What a recogniser is asked and what it has heard: the values that all parts share, and its interface."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Features = Any


@dataclass(frozen=True)
class Mode:
    """What segments must have in common to be recognised in one run."""

    language: str = "auto"
    itn: bool = True
    hotwords: tuple[str, ...] = ()
    translate: bool = False
    words: bool = False


@dataclass(frozen=True)
class Word:
    """Times in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Heard:
    """One segment's text. None: this model does not say. Times of words count from the segment's start."""

    text: str
    tokens: tuple[int, ...] = ()
    words: tuple[Word, ...] | None = None
    language: str | None = None
    emotion: str | None = None
    event: str | None = None
    avg_logprob: float | None = None
    no_speech_prob: float | None = None


@dataclass(frozen=True)
class Abilities:
    """What the model can be asked."""

    languages: tuple[str, ...]
    detects_language: bool = False
    itn: bool = False
    always_itn: bool = False
    hotwords: bool = False
    tags: bool = False
    words: bool = False
    translates: bool = False


class Recogniser(ABC):
    """A model that turns segments of speech into text. `features` may run in any thread, `recognise` in one."""

    longest_s: float = 60.0  # of a segment, where nobody says otherwise
    most_s: float = math.inf  # of a segment that it can read at all
    window_s: float = 0.0  # what every segment is padded to
    abilities: Abilities
    frontend: Any = None  # of FunASR, where the model has one

    @abstractmethod
    def features(self, samples: Any) -> Features:
        """The model's input for float32 samples at 16 kHz."""

    @abstractmethod
    def recognise(self, batch: Sequence[Features], mode: Mode) -> Sequence[Heard]:
        """One run of the model."""

    def writes_marks(self, mode: Mode) -> bool:
        """Whether its text has punctuation of its own."""
        return False


def is_wide(text: str) -> bool:
    """Whether a character belongs to a script written without spaces between words."""
    return bool(text) and (
        "\u2e80" <= text[0] <= "\u9fff" or "\uf900" <= text[0] <= "\ufaff" or is_full(text[0])
    )


def is_full(text: str) -> bool:
    return "\uff00" <= text <= "\uff60" or "\u3000" <= text <= "\u30ff"


def gap(before: str, text: str) -> str:
    """What stands between two texts."""
    return "" if not before or not text or is_wide(before[-1]) or is_wide(text[0]) else " "
