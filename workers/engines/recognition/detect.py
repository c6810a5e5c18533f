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

from workers.engines.recognition.decoder import RATE
from workers.engines.recognition.folders import Loaded
from workers.engines.recognition.funasr_features import Listening

STRETCH = 60 * RATE
SHORTEST = 400  # samples of one frame of features
HOP = 160  # samples from frame to frame
KEPT = 3 * STRETCH // HOP  # frames: a span may have begun before the stretch
SILENT = 10 ** (-60 / 20)


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


def decides_by_frame(options: Any) -> bool:
    """Whether a frame's state depends on nothing before it: no bound on the ratio to the noise heard so far."""
    return len(options.sil_pdf_ids) == 1 and options.snr_thres <= -100 and not options.output_frame_probs


class FrameStates:
    """The detector's decision on a frame, made for all frames it holds at once: one by one it is half its time."""

    def __init__(self, options: Any) -> None:
        from funasr.models.fsmn_vad_streaming.model import FrameState

        self.options, self.names = options, (FrameState.kFrameStateSil, FrameState.kFrameStateSpeech)
        self.scores: Any = None
        self.speech: list[bool] = []

    def __call__(self, t: int, cache: dict[str, Any]) -> Any:
        stats = cache["stats"]
        if stats.scores is not self.scores:
            self.scores, self.speech = stats.scores, self.decide(stats)
        return self.names[t < len(self.speech) and self.speech[t]]

    def decide(self, stats: Any) -> list[bool]:
        silence = stats.scores[0, :, self.options.sil_pdf_ids[0]].double().numpy()
        loud = np.asarray(stats.decibel) >= self.options.decibel_thres
        sure = 1 - silence >= silence**self.options.speech_2_noise_ratio + stats.speech_noise_thres
        count = min(len(loud), len(sure))
        return list((loud[:count] & sure[:count]).tolist())


class FsmnFinder:
    """FunASR's fsmn-vad. `silence_ms` ends a span (0: FunASR's own schedule); `longest_s` bounds it."""

    def __init__(self, loaded: Loaded, silence_ms: int, longest_s: float) -> None:
        if not hasattr(loaded.model, "vad_opts"):
            raise ValueError(f"the vad_model is a {loaded.kind}, which does not detect speech")
        loaded.model.vad_opts.max_single_segment_time = round(longest_s * 1000)
        self.loaded, self.frontend = loaded, loaded.frontend
        if decides_by_frame(loaded.model.vad_opts):
            loaded.model.GetFrameState = FrameStates(loaded.model.vad_opts)
        self.settings = dict(loaded.settings) | {"chunk_size": 60_000, "is_streaming_input": False}
        if silence_ms:
            self.settings["max_end_silence_time"] = silence_ms

    def session(self) -> FsmnSession:
        return FsmnSession(self)


@dataclass
class FsmnSession:
    finder: FsmnFinder
    cache: dict[str, Any] = field(default_factory=dict)
    heard: Any = None  # filter banks of the last stretches
    first: int = 0  # the frame that `heard` begins with

    def feed(self, samples: Any, last: bool) -> Sequence[Span]:
        if len(samples) < SHORTEST and not self.cache:
            return ()
        loaded, listening = self.finder.loaded, Listening(self.finder.loaded.frontend)
        with torch.inference_mode():
            results, _ = loaded.model.inference(
                [torch.from_numpy(samples)],
                key=["sound"],
                frontend=listening,
                cache=self.cache,
                is_final=last,
                **self.finder.settings,
            )
        self._keep(listening.banks)
        unit = RATE // 1000
        return [Span(int(start) * unit, int(end) * unit) for start, end in results[0]["value"] if end > start]

    def _keep(self, banks: Sequence[Any]) -> None:
        whole = torch.cat([*([] if self.heard is None else [self.heard]), *banks]) if banks else self.heard
        if whole is not None:
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
