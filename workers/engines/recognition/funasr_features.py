"""The features of FunASR's models, made outside the model's thread, and how its `inference` takes them ready-made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence


def features(frontend: Any, samples: Any) -> Any:
    """Filter banks of one segment, frames by numbers."""
    wave = torch.from_numpy(samples)[None]
    return frontend(wave, [wave.shape[1]])[0][0]


class ReadyFeatures:
    """Stands where a model expects its frontend, and hands out features that are there already."""

    def __init__(self, frontend: Any, rows: Sequence[Any]) -> None:
        self.fs, self.cmvn_file = frontend.fs, getattr(frontend, "cmvn_file", None)
        self.frame_shift, self.lfr_n = frontend.frame_shift, frontend.lfr_n
        self._rows = list(rows)

    def __call__(self, waves: Any, lengths: Any, **settings: Any) -> tuple[Any, Any]:
        counts = torch.tensor([len(row) for row in self._rows], dtype=torch.int32)
        return pad_sequence(self._rows, batch_first=True), counts
