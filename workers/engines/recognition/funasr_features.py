"""The features of FunASR's models, made outside the model's thread, and how its `inference` takes them ready-made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from funasr.frontends.wav_frontend import apply_cmvn, apply_lfr
from torch.nn.utils.rnn import pad_sequence

# What must be the same for two frontends to make the same filter banks.
SAME = ("fs", "window", "n_mels", "frame_length", "frame_shift", "dither")


def features(frontend: Any, samples: Any) -> Any:
    """Filter banks of one segment as the model wants them, frames by numbers."""
    wave = torch.from_numpy(samples)[None]
    return frontend(wave, [wave.shape[1]])[0][0]


def from_banks(frontend: Any, banks: Any) -> Any:
    """The same from plain filter banks that somebody else has made: frames stacked and normalised."""
    rows = apply_lfr(banks, frontend.lfr_m, frontend.lfr_n)
    return rows if frontend.cmvn is None else apply_cmvn(rows, frontend.cmvn)


def same_banks(one: Any, other: Any) -> bool:
    """Whether the frames of one frontend can stand for the other's: whole frames, no noise, the same scale."""
    plain = all(
        getattr(each, "snip_edges", True) and getattr(each, "upsacle_samples", True) for each in (one, other)
    )
    return plain and all(getattr(one, name, None) == getattr(other, name, None) for name in SAME)


class ReadyFeatures:
    """Stands where a model expects its frontend, and hands out features that are there already."""

    def __init__(self, frontend: Any, rows: Sequence[Any]) -> None:
        self.fs, self.cmvn_file = frontend.fs, getattr(frontend, "cmvn_file", None)
        self.frame_shift, self.lfr_n = frontend.frame_shift, frontend.lfr_n
        self._rows = list(rows)

    def __call__(self, waves: Any, lengths: Any, **settings: Any) -> tuple[Any, Any]:
        counts = torch.tensor([len(row) for row in self._rows], dtype=torch.int32)
        return pad_sequence(self._rows, batch_first=True), counts
