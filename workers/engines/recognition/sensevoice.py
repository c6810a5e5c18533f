"""SenseVoice-small as torch runs it: the encoder and its output layer are FunASR's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from workers.engines.recognition.folders import Loaded
from workers.engines.recognition.funasr_features import features
from workers.engines.recognition.hearing import Abilities, Features, Heard, Mode, Recogniser
from workers.engines.recognition.sense_text import TAGS, SenseText

EVENT_QUERIES = (1, 2)


class SenseVoice(Recogniser):
    """One SenseVoiceSmall."""

    longest_s = 30.0

    def __init__(self, loaded: Loaded, device: str) -> None:
        self.model, self.frontend, self.device = loaded.model, loaded.frontend, device
        self.text = SenseText(loaded.tokenizer.sp, loaded.frontend, self.model.blank_id)
        languages = tuple(name for name in self.model.lid_dict if name not in ("auto", "nospeech"))
        self.abilities = Abilities(languages, detects_language=True, itn=True, tags=True, words=True)

    def writes_marks(self, mode: Mode) -> bool:
        return mode.itn

    def features(self, samples: Any) -> Features:
        return features(self.frontend, samples)

    def recognise(self, batch: Sequence[Features], mode: Mode) -> Sequence[Heard]:
        with torch.inference_mode():
            speech = pad_sequence(list(batch), batch_first=True).to(self.device)
            lengths = torch.tensor([len(each) + TAGS for each in batch], device=self.device)
            queries = self.queries(mode).expand(len(batch), -1, -1)
            output, _ = self.model.encoder(torch.cat((queries, speech), dim=1), lengths)
            # Row by row: the vocabulary is large, and padded rows of it would take gigabytes.
            output_layer = self.model.ctc.ctc_lo
            return [
                self.text.read(output_layer(output[row, :length]))
                for row, length in enumerate(lengths.tolist())
            ]

    def queries(self, mode: Mode) -> Any:
        language = self.model.lid_dict.get(mode.language, 0)
        style = self.model.textnorm_dict["withitn" if mode.itn else "woitn"]
        return self.model.embed(torch.tensor([[language, *EVENT_QUERIES, style]], device=self.device))
