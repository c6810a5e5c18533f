"""From a sound to a transcript: find speech, make features, recognise, join.

Long sounds go through in stretches of a minute. Some stretches may be under way at once, so that finding speech and
recognising overlap while memory stays bounded. Segments of all requests meet in one window and share runs. Speech is
found on one thread of its own, the models run on the window's thread; this module only passes things on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.engines.recognition.detect import SHORTEST, STRETCH, Finder, Session, Span
from workers.engines.recognition.funasr_features import from_banks, same_banks
from workers.engines.recognition.hearing import Features, Heard, Mode, Recogniser, Word
from workers.engines.recognition.punctuate import Punctuator
from workers.engines.recognition.request import Ask
from workers.engines.recognition.sound import RATE, Sound
from workers.engines.recognition.transcript import Growing, Segment, Transcript
from workers.engines.sounds.decoders import Samples
from workers.engines.window import Batch, Pick, Window, near_in_length

if TYPE_CHECKING:  # it brings libraries that nobody else needs
    from workers.engines.recognition.speakers import Speakers

AHEAD = 4  # stretches under way at once
HOP = RATE // 100
MARGIN = 5  # hops kept around what is loud
SHORTEST_WORD_S = 0.03
QUIET = 1e-3  # of the loudest hop's power: 30 dB below it
Voice = Any  # embeddings of one segment, or None
Report = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Piece:
    """One segment that waits for recognition."""

    mode: Mode
    features: Features
    length_ms: int


@dataclass(frozen=True)
class Stretch:
    """A part of the sound that is being recognised: where it is loud in its spans, and their texts to come."""

    end: int
    spans: Sequence[tuple[Span, Span]]
    heard: asyncio.Future[tuple[list[Heard], list[Voice]]]


@dataclass
class Passage:
    """One request's way through the pipeline. `sound` and what was found of it are in samples."""

    sound: Sound
    mode: Mode
    session: Session
    speakers: Speakers | None


class Pipeline:
    """Everything between a decoded sound and its transcript. `finder` runs on one thread only."""

    def __init__(
        self,
        recogniser: Recogniser,
        finder: Finder,
        punctuator: Punctuator | None,
        pick: Pick[Piece],
        wait_s: float,
        speakers: Speakers | None = None,
    ) -> None:
        self.recogniser, self.finder, self.punctuator = recogniser, finder, punctuator
        self.speakers = speakers
        self.window: Window[Piece, Heard] = Window(self.run_batch, pick, wait_s)
        self.front = ThreadPoolExecutor(1, "speech")
        # Detector and recogniser mostly look at the same filter banks; then they are made once.
        self.shared = None not in (finder.frontend, recogniser.frontend) and same_banks(
            finder.frontend, recogniser.frontend
        )
        self.heard_s = 0.0

    def start(self) -> None:
        self.window.start()
        if self.speakers is not None:
            self.speakers.start()

    def stop(self) -> None:
        self.window.stop()
        if self.speakers is not None:
            self.speakers.stop()
        self.front.shutdown(wait=False, cancel_futures=True)

    def run_batch(self, batch: Batch[Piece, Heard]) -> Sequence[Heard]:
        """On the model's thread."""
        pieces = batch.items
        self.heard_s += sum(piece.length_ms for piece in pieces) / 1000
        return self.recogniser.recognise([piece.features for piece in pieces], pieces[0].mode)

    async def transcribe(
        self,
        sound: Sound,
        ask: Ask,
        report: Report,
        say: Callable[[str], None] = lambda text: None,
    ) -> Transcript:
        """The transcript; `say` gets the text piece by piece as it becomes final. Speakers are known at the end."""
        mode, punctuator = ask.mode, self.punctuator if ask.punctuation else None
        growing = Growing(punctuator.session() if punctuator is not None else None)
        total = sound.seconds
        report(0, total, "recognising")
        passage = Passage(sound, mode, self.finder.session(), self.speakers if ask.speakers else None)
        async with aclosing(self._segments(passage)) as stretches:
            async for end, segments in stretches:
                text = await self._grow(growing, segments)
                if text:
                    say(text)
                report(min(end / RATE, total), total, "recognising")
        text = await self._write(growing, growing.finish)
        if text:
            say(text)
        known = "en" if mode.translate else mode.language if mode.language != "auto" else None
        only = self.recogniser.abilities.languages
        detects = self.recogniser.abilities.detects_language
        transcript = growing.transcript(total, known or (only[0] if only and not detects else None))
        if passage.speakers is None:
            return transcript
        report(total, total, "telling speakers apart")
        return await asyncio.to_thread(passage.speakers.named, transcript)

    async def _grow(self, growing: Growing, segments: Sequence[Segment]) -> str:
        def add() -> str:
            return "".join([growing.add(segment) for segment in segments])

        return await self._write(growing, add)

    async def _write(self, growing: Growing, write: Callable[[], str]) -> str:
        """What it writes. Punctuating runs a small model, which is for one thread; without it there is nothing to
        wait for.
        """
        if growing.punctuation is None:
            return write()
        return await asyncio.get_running_loop().run_in_executor(self.front, write)

    async def _segments(self, passage: Passage) -> AsyncGenerator[tuple[int, list[Segment]], None]:
        """The segments of each stretch in order, with the sample up to which the sound is done."""
        under_way = deque[Stretch]()
        try:
            for start in range(0, max(1, len(passage.sound.samples)), STRETCH):
                under_way.append(await self._begin(passage, start))
                while len(under_way) > AHEAD or (under_way and under_way[0].heard.done()):
                    yield await finished(under_way)
            while under_way:
                yield await finished(under_way)
        finally:
            for stretch in under_way:
                stretch.heard.cancel()

    async def _begin(self, passage: Passage, start: int) -> Stretch:
        """Find the speech of a stretch and hand it to the window."""
        loop = asyncio.get_running_loop()
        spans, pieces = await loop.run_in_executor(self.front, self._find, passage, start)
        end = min(start + STRETCH, len(passage.sound.samples))
        work = (self._recognise(pieces), self._voices(passage, [span for span, _ in spans]))
        return Stretch(end, spans, asyncio.gather(*work))

    async def _recognise(self, pieces: Sequence[Piece]) -> list[Heard]:
        return await self.window.submit(pieces) if pieces else []

    async def _voices(self, passage: Passage, spans: Sequence[Span]) -> list[Voice]:
        """The embeddings of each span; nothing where speakers are not asked for."""
        if passage.speakers is None or not spans:
            return [None] * len(spans)
        return await passage.speakers.embed([passage.sound.piece(each.start, each.end) for each in spans])

    def _find(self, passage: Passage, start: int) -> tuple[list[tuple[Span, Span]], list[Piece]]:
        """On the finder's thread: each span with the loud part of it, and what is to be recognised."""
        samples = passage.sound.samples
        end = min(start + STRETCH, len(samples))
        found = passage.session.feed(passage.sound.piece(start, end), last=end >= len(samples))
        spans = [Span(each.start, min(each.end, len(samples))) for each in found]
        spans = [each for each in spans if each.end - each.start >= SHORTEST]
        pieces, shown = [], []
        for each in spans:
            part = passage.sound.piece(each.start, each.end)
            length_ms = len(part) * 1000 // RATE
            pieces.append(Piece(passage.mode, self._features(passage.session, each, part), length_ms))
            shown.append((each, loud(each, part)))
        return shown, pieces

    def _features(self, session: Session, span: Span, samples: Samples) -> Features:
        banks = session.banks(span) if self.shared else None
        return (
            self.recogniser.features(samples)
            if banks is None
            else from_banks(self.recogniser.frontend, banks)
        )


async def finished(under_way: deque[Stretch]) -> tuple[int, list[Segment]]:
    """Wait for the oldest stretch and take it."""
    stretch = under_way[0]
    heard, voices = await stretch.heard
    under_way.popleft()
    return stretch.end, [segment(*each) for each in zip(stretch.spans, heard, voices, strict=True)]


def loud(span: Span, samples: Samples) -> Span:
    """The span without the quiet at its ends, which a detector leaves there for the recogniser's sake."""
    count = len(samples) // HOP
    power = np.square(samples[: count * HOP]).reshape(count, HOP).mean(1)
    places = np.flatnonzero(power > max(float(power.max()) * QUIET, 1e-9))
    if not len(places):
        return span
    start, end = (
        span.start + (int(places[0]) - MARGIN) * HOP,
        span.start + (int(places[-1]) + 1 + MARGIN) * HOP,
    )
    return Span(max(span.start, start), min(span.end, end))


def segment(spans: tuple[Span, Span], heard: Heard, voice: Voice) -> Segment:
    """Times from the start of the sound, in seconds."""
    span, inner = spans
    first, last = inner.start / RATE, span.end / RATE
    words = heard.words and tuple(within(word, span.start / RATE, first, last) for word in heard.words)
    return Segment(first, inner.end / RATE, replace(heard, words=words), voice=voice)


def within(word: Word, offset: float, first: float, last: float) -> Word:
    """The word where it was said. A recogniser may place it in the silence before, where nothing is said."""
    start = min(max(first, offset + word.start), last)
    return Word(word.text, start, min(max(start + SHORTEST_WORD_S, offset + word.end), last))


def alike_and_near(most: int, seconds: float, window_s: float = 0.0) -> Pick[Piece]:
    """A pick: the oldest piece with those of its mode that are nearest in length, within padded seconds.

    A model that pads every piece to a window pays for the window.
    """
    least = round(window_s * 1000)
    near: Pick[Piece] = near_in_length(lambda piece: max(piece.length_ms, least), most, round(seconds * 1000))

    def pick(pieces: Sequence[Piece]) -> Sequence[int]:
        places = [place for place, piece in enumerate(pieces) if piece.mode == pieces[0].mode]
        return [places[chosen] for chosen in near([pieces[place] for place in places])]

    return pick
