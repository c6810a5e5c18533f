"""Who speaks: embeddings of short pieces of the segments, grouped for each sound by itself.

The model is FunASR's CAM++. Pieces are a second and a half, every 0.75 s, as FunASR cuts them. The pieces of all
requests share runs in a window of their own; a caller who leaves takes the waiting ones along. Names are `spk0`,
`spk1`, ... in the order in which they begin to speak, and mean nothing in another sound.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from funasr.models.campplus.utils import extract_feature, sv_chunk

from workers.engines.recognition.clusters import cluster
from workers.engines.recognition.folders import Loaded
from workers.engines.recognition.sound import RATE
from workers.engines.recognition.transcript import Segment, Transcript
from workers.engines.sounds.decoders import Samples
from workers.engines.window import Batch, Window

PIECES_AT_ONCE = 32


class Speakers:
    """One speaker model. Raises ValueError for a model that makes no embeddings."""

    def __init__(self, loaded: Loaded, device: str) -> None:
        if loaded.kind != "CAMPPlus" or getattr(loaded.model, "output_level", "") != "segment":
            raise ValueError(f"the spk_model is a {loaded.kind}, not a CAMPPlus")
        self.model, self.device = loaded.model, device
        self.window: Window[Any, Any] = Window(
            self._run, lambda items: range(min(len(items), PIECES_AT_ONCE))
        )

    def start(self) -> None:
        self.window.start()

    def stop(self) -> None:
        self.window.stop()

    async def embed(self, parts: Sequence[Samples]) -> list[Any]:
        """For each part its embeddings, pieces by numbers."""
        features = await asyncio.to_thread(lambda: [pieces(each) for each in parts])
        found = iter(await self.window.submit([piece for each in features for piece in each]))
        return [np.stack([next(found) for _ in each]) for each in features]

    def _run(self, batch: Batch[Any, Any]) -> Sequence[Any]:
        with torch.inference_mode():
            found = self.model(torch.stack(batch.items).to(self.device))
        return list(found.float().cpu().numpy())

    def named(self, transcript: Transcript) -> Transcript:
        """With a speaker for each segment: the one whom most of its pieces belong to."""
        segments = transcript.segments
        if not segments:
            return transcript
        labels = iter(cluster(np.concatenate([each.voice for each in segments])).tolist())
        chosen = [Counter([next(labels) for _ in each.voice]).most_common(1)[0][0] for each in segments]
        places = {label: place for place, label in enumerate(dict.fromkeys(chosen))}
        pairs: list[tuple[Segment, int]] = list(zip(segments, chosen, strict=True))
        return replace(
            transcript, segments=[replace(each, speaker=f"spk{places[label]}") for each, label in pairs]
        )


def pieces(samples: Samples) -> list[Any]:
    """Features of the pieces of one segment, all of one length; a short one is filled up with silence."""
    cut = [torch.from_numpy(sound) for _, _, sound in sv_chunk([[0.0, len(samples) / RATE, samples]])]
    return list(extract_feature(cut)[0])
