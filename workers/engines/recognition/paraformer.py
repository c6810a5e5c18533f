"""Paraformer and its kin: plain, with hotwords (SeACo, contextual), with better times (BiCif, SeACo).

The model's own `inference` runs a whole batch; only the features are made before. The family has no language, no
tags and no punctuation, and it does not give probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from workers.engines.recognition.folders import Loaded
from workers.engines.recognition.funasr_features import ReadyFeatures, features
from workers.engines.recognition.hearing import Abilities, Features, Heard, Mode, Recogniser, Word

WORDS = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff]|[^\s\u2e80-\u9fff\uf900-\ufaff]+")
# Of the classes in FunASR's registry, those whose `inference` reads `hotword`, and those that always give times.
WITH_HOTWORDS = ("SeacoParaformer", "ContextualParaformer", "LCBNet")
WITH_TIMES = ("SeacoParaformer", "BiCifParaformer")


class Paraformer(Recogniser):
    """One model of the family. `languages` is what its folder was trained for; the first one is assumed."""

    def __init__(self, loaded: Loaded, languages: Sequence[str]) -> None:
        self.loaded, self.frontend = loaded, loaded.frontend
        hotwords = loaded.kind in WITH_HOTWORDS
        times = loaded.kind in WITH_TIMES or loaded.kind == "Paraformer"
        self.abilities = Abilities(tuple(languages), hotwords=hotwords, words=times)

    def features(self, samples: Any) -> Features:
        return features(self.loaded.frontend, samples)

    def recognise(self, batch: Sequence[Features], mode: Mode) -> Sequence[Heard]:
        results = self.infer(batch, mode)
        if len(results) != len(batch):
            # A run without a single token answers nothing at all, and which segment was empty is lost.
            singly = [self.infer([each], mode) for each in batch] if len(batch) > 1 else [[]]
            results = [found[0] if found else {"text": ""} for found in singly]
        return [self.read(result, mode) for result in results]

    def infer(self, batch: Sequence[Features], mode: Mode) -> Sequence[dict[str, Any]]:
        loaded = self.loaded
        # FunASR fetches what looks like an address; the blank before the first word keeps that from ever being so.
        extra = {"hotword": " " + " ".join(mode.hotwords)} if mode.hotwords else {}
        with torch.inference_mode():
            answer = loaded.model.inference(
                [torch.zeros(1) for _ in batch],
                key=[str(place) for place in range(len(batch))],
                tokenizer=loaded.tokenizer,
                frontend=ReadyFeatures(loaded.frontend, batch),
                **(loaded.settings | {"pred_timestamp": mode.words} | extra),
            )
        return list(answer[0]) if len(answer) else []

    def read(self, result: dict[str, Any], mode: Mode) -> Heard:
        text = str(result.get("text", "")).strip()
        times = result.get("timestamp")
        if not mode.words or times is None:
            return Heard(text)
        parts = WORDS.findall(text)
        if len(parts) != len(times):
            return Heard(text)
        return Heard(
            text,
            words=tuple(
                Word(part, start / 1000, end / 1000) for part, (start, end) in zip(parts, times, strict=True)
            ),
        )
