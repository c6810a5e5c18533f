"""What comes out of one sound: segments in order, and their text as it grows.

Owns the joining of texts and the punctuation over segments. `Growing` gets the segments in order and tells what text
is final; the pieces it gives, one after another, are the whole text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workers.engines.recognition.hearing import Heard, gap
from workers.engines.recognition.punctuate import Punctuation, Unit, surface


@dataclass(frozen=True)
class Segment:
    """Seconds from the start of the sound."""

    start: float
    end: float
    heard: Heard
    speaker: str | None = None
    voice: Any = field(default=None, compare=False)  # embeddings of its pieces, where speakers are asked for

    @property
    def text(self) -> str:
        return self.heard.text


@dataclass(frozen=True)
class Transcript:
    seconds: float
    segments: Sequence[Segment]
    text: str
    language: str | None = None


@dataclass
class Growing:
    """A transcript under way."""

    punctuation: Punctuation | None
    segments: list[Segment] = field(default_factory=list)
    units: dict[int, list[Unit]] = field(default_factory=dict)
    text: str = ""

    def add(self, segment: Segment) -> str:
        """The text that became final."""
        if not segment.text:
            return ""
        self.segments.append(segment)
        if self.punctuation is None:
            return self._append(segment.text)
        return self._settle(self.punctuation.feed(segment.text, len(self.segments) - 1))

    def finish(self) -> str:
        return self._settle(self.punctuation.finish()) if self.punctuation is not None else ""

    def _settle(self, units: Sequence[Unit]) -> str:
        more = ""
        for unit in units:
            self.units.setdefault(unit.segment, []).append(unit)
            more += self._append(unit.text + unit.mark)
        return more

    def _append(self, text: str) -> str:
        piece = gap(self.text, text) + text
        self.text += piece
        return piece

    def transcript(self, seconds: float, language: str | None) -> Transcript:
        segments = self.segments
        if self.punctuation is not None:
            segments = [
                replace(segment, heard=replace(segment.heard, text=surface(self.units.get(place, ()))))
                for place, segment in enumerate(segments)
            ]
        return Transcript(seconds, segments, self.text, language or spoken(segments))


def spoken(segments: Sequence[Segment]) -> str | None:
    """The language that was spoken longest, where the model tells."""
    seconds: Counter[str] = Counter()
    for segment in segments:
        if segment.heard.language is not None:
            seconds[segment.heard.language] += segment.end - segment.start  # type: ignore[assignment]
    return seconds.most_common(1)[0][0] if seconds else None
