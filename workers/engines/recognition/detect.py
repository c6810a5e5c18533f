"""Finding speech: where in a sound somebody speaks, told while the sound is read in stretches.

Two finders: FunASR's FSMN detector, and without a model a cut at quiet places. Both are for one thread. A stretch is
a minute, the detector's own step, so the spans are the same as for the whole file at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from workers.engines.recognition.folders import Loaded
from workers.engines.recognition.segmenter import Rules, Segmenter
from workers.engines.recognition.sound import RATE

STRETCH = 60 * RATE
SHORTEST = 400  # samples of one frame of features
HOP = 160  # samples from frame to frame
KEPT = 3 * STRETCH // HOP  # frames: a span may have begun before the stretch
SILENT = 10 ** (-60 / 20)
SEVERAL = 1  # FunASR's `detect_mode` for sounds of more than one utterance
# FunASR's schedule for a silence nobody chose: up to so many milliseconds of speech, so many of silence.
SCHEDULE = ((10_000, 2000), (20_000, 1000), (30_000, 800), (40_000, 600), (50_000, 400), (60_000, 200))
SCHEDULE += ((float("inf"), 100),)  # type: ignore[assignment]
SCHEDULED_THRESHOLD = 0.5


@dataclass(frozen=True)
class Span:
    """Samples `start` to `end` of the sound."""

    start: int
    end: int


class Session(Protocol):
    """One sound's detection."""

    def feed(self, samples: Any, last: bool) -> Sequence[Span]:
        """The spans that are complete now. Samples are float32, a stretch at a time."""

    def banks(self, span: Span) -> Any | None:
        """The filter banks of a span of the last `feed`, where they were made anyway."""


class Finder(Protocol):
    @property
    def frontend(self) -> Any: ...

    def session(self) -> Session: ...


class FsmnFinder:
    """FunASR's fsmn-vad: its features, its network and its rules. `silence_ms` ends a span (0: FunASR's own schedule);
    `longest_s` bounds it. Raises ValueError for a model that works otherwise.
    """

    def __init__(self, loaded: Loaded, silence_ms: int, longest_s: float) -> None:
        options = getattr(loaded.model, "vad_opts", None)
        if options is None:
            raise ValueError(f"the vad_model is a {loaded.kind}, which does not detect speech")
        if options.snr_thres > -100 or options.detect_mode != SEVERAL:
            raise ValueError(
                "the vad_model finds a single utterance or compares with the noise: not supported"
            )
        self.encoder, self.frontend, self.options = loaded.model.encoder, loaded.frontend, options
        self.silence_ms = silence_ms
        self.frame_ms = options.frame_in_ms
        self.rules = Rules(
            window=options.window_size_ms // self.frame_ms,
            to_speech=options.sil_to_speech_time_thres // self.frame_ms,
            to_silence=options.speech_to_sil_time_thres // self.frame_ms,
            back=options.lookback_time_start_point // self.frame_ms if options.do_extend else 0,
            ahead=options.lookahead_time_end_point // self.frame_ms,
            longest=longest_s * 1000 / self.frame_ms,
            extend=bool(options.do_extend),
        )

    def session(self) -> FsmnSession:
        return FsmnSession(self)

    def end_silence(self, silence_ms: int) -> float:
        """Frames of silence that end a span; the window has seen the first of them by then."""
        return float(max(0, silence_ms - self.options.speech_to_sil_time_thres) / self.frame_ms)

    def is_speech(self, scores: Any, samples: Any) -> list[bool]:
        """For each frame, by the network's scores (frames by classes) and its loudness; samples are those of the
        frames.
        """
        options = self.options
        silence = scores[:, options.sil_pdf_ids].sum(1).double().numpy()
        frames = np.lib.stride_tricks.sliding_window_view(samples, SHORTEST)[::HOP]
        decibel = 10 * np.log10(np.einsum("ij,ij->i", frames, frames) + 1e-6)
        noise = silence**options.speech_2_noise_ratio + (
            options.speech_noise_thres if self.silence_ms else SCHEDULED_THRESHOLD
        )
        return list(((decibel >= options.decibel_thres) & (1 - silence >= noise)).tolist())


class FsmnSession:
    """What one sound needs from stretch to stretch."""

    def __init__(self, finder: FsmnFinder) -> None:
        self.finder = finder
        self.segmenter = Segmenter(finder.rules, finder.end_silence(finder.silence_ms or SCHEDULE[0][1]))
        self.frontend: dict[str, Any] = {}
        self.encoder: dict[str, Any] = {}
        self.spoken_ms = 0  # since the segment began, in whole stretches
        self.heard: Any = None  # filter banks of the last stretches
        self.first = 0  # the frame that `heard` begins with

    def feed(self, samples: Any, last: bool) -> Sequence[Span]:
        if len(samples) < SHORTEST and not self.frontend:
            return ()
        if not self.finder.silence_ms:
            self._shorten_silence()
        with torch.inference_mode():
            rows, _ = self.finder.frontend(
                torch.from_numpy(samples)[None],
                [len(samples)],
                cache=self.frontend,
                is_final=last,
                return_waveform=True,
            )
            self._keep()
            speech = []
            if rows.numel():
                scores = self.finder.encoder(rows.float(), cache=self.encoder)[0]
                speech = self.finder.is_speech(scores, self.frontend["aligned_waveforms"][0].numpy())
        found = self.segmenter.feed(speech, last)
        if found:
            self.spoken_ms = 0
        return [Span(start * HOP, end * HOP) for start, end in found]

    def _shorten_silence(self) -> None:
        """FunASR's schedule: the longer somebody speaks, the shorter a silence ends it."""
        if self.segmenter.speaking or self.spoken_ms:
            self.spoken_ms += STRETCH * 1000 // RATE
        silence_ms = next(silence for limit, silence in SCHEDULE if self.spoken_ms <= limit)
        self.segmenter.end_silence = self.finder.end_silence(silence_ms)

    def _keep(self) -> None:
        banks = self.frontend.get("fbanks")
        if banks is not None and banks.ndim == 3:
            whole = banks[0] if self.heard is None else torch.cat((self.heard, banks[0]))
            self.heard = whole[-KEPT:]
            self.first += len(whole) - len(self.heard)

    def banks(self, span: Span) -> Any | None:
        if span.start % HOP or self.heard is None:
            return None
        start, count = span.start // HOP - self.first, (span.end - span.start - SHORTEST) // HOP + 1
        found = self.heard[max(start, 0) : start + count]
        return found if start >= 0 and len(found) == count else None


class QuietFinder:
    """Without a model: spans of up to `longest_s`, cut where the last part of each is quietest."""

    frontend = None

    def __init__(self, longest_s: float) -> None:
        self.longest = round(longest_s * RATE)

    def session(self) -> QuietSession:
        return QuietSession(self.longest)


@dataclass
class QuietSession:
    longest: int
    start: int = 0
    rest: Any = field(default_factory=lambda: np.zeros(0, np.float32))

    def feed(self, samples: Any, last: bool) -> Sequence[Span]:
        self.rest = np.concatenate((self.rest, samples))
        spans = []
        while len(self.rest) > self.longest or (last and len(self.rest) >= SHORTEST):
            size = quiet_cut(self.rest, self.longest)
            if np.abs(self.rest[:size]).max() > SILENT:
                spans.append(Span(self.start, self.start + size))
            self.start, self.rest = self.start + size, self.rest[size:]
        return spans

    def banks(self, span: Span) -> Any | None:
        return None


def quiet_cut(samples: Any, longest: int) -> int:
    """Where to cut: the end, or the middle of the quietest 100 ms in the last third of the longest span."""
    if len(samples) <= longest:
        return len(samples)
    window, low = RATE // 10, longest * 2 // 3
    count = (longest - low) // window
    if count < 1:
        return longest
    parts = samples[low : low + count * window].reshape(count, window)
    return low + int(np.argmin(np.square(parts).sum(1))) * window + window // 2
