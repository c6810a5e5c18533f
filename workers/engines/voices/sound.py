"""Samples as every voice gives them, and what is done with them before they are encoded: rate and tempo.

A `Sound` is mono int16 with its rate in hertz. Filtering is FFmpeg's, through PyAV.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

RATE = 24_000
Samples = Any


@dataclass(frozen=True)
class Sound:
    """Mono int16 samples."""

    samples: Samples
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def as_int16(samples: Samples) -> Samples:
    """int16 of any samples; floats are full scale at one, and clipped."""
    flat = np.asarray(samples).reshape(-1)
    if flat.dtype == np.int16:
        return flat
    return (np.nan_to_num(flat.astype(np.float32)).clip(-1, 1) * 32767).round().astype(np.int16)


def converted(sound: Sound, rate: int = RATE, tempo: float = 1.0) -> Samples:
    """The samples at another rate, and `tempo` times as fast with the same pitch (FFmpeg's `atempo`)."""
    if len(sound.samples) == 0 or (sound.rate == rate and tempo == 1.0):
        return sound.samples
    graph = av.filter.Graph()
    chain = [graph.add_abuffer(sample_rate=sound.rate, format="s16", layout="mono")]
    chain += [graph.add("atempo", f"{step:.6f}") for step in tempo_steps(tempo)]
    chain += [
        graph.add("aresample", str(rate)),
        graph.add("aformat", "sample_fmts=s16:channel_layouts=mono"),
        graph.add("abuffersink"),
    ]
    graph.link_nodes(*chain).configure()
    graph.push(frame_of(sound.samples, sound.rate, 0))
    graph.push(None)
    return np.concatenate([np.zeros(0, np.int16), *pulled(graph)])


def pulled(graph: Any) -> Iterator[Samples]:
    while True:
        try:
            yield graph.pull().to_ndarray().reshape(-1)
        except (EOFError, BlockingIOError):
            return


def tempo_steps(tempo: float) -> list[float]:
    """Factors that FFmpeg takes (from one half), with the wanted product."""
    if tempo == 1.0:
        return []
    return [tempo] if tempo >= 0.5 else [0.5, *tempo_steps(tempo / 0.5)]


def frame_of(samples: Samples, rate: int, at: int) -> Any:
    """A frame of int16 samples that begins at sample number `at`."""
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples).reshape(1, -1), format="s16", layout="mono"
    )
    frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
    return frame
