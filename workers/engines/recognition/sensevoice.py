"""SenseVoice-small: text, language, emotion and events by CTC.

The encoder and its output layer are FunASR's; the greedy decoding is done here, because FunASR's neither gives
tokens and probabilities nor survives its own timestamps for every tokenizer. Times follow its convention: a frame is
60 ms, and what a frame hears lies 30 ms before it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from workers.engines.recognition.folders import Loaded
from workers.engines.recognition.funasr_features import features
from workers.engines.recognition.hearing import Abilities, Features, Heard, Mode, Recogniser, Word, is_wide

TAGS = 4  # language, emotion, event, style: the first four frames
EVENT_QUERIES = (1, 2)
SPACE = "\u2581"


class SenseVoice(Recogniser):
    """One SenseVoiceSmall."""

    longest_s = 30.0

    def __init__(self, loaded: Loaded, device: str) -> None:
        self.model, self.frontend, self.device = loaded.model, loaded.frontend, device
        self.pieces = loaded.tokenizer.sp
        languages = tuple(name for name in self.model.lid_dict if name not in ("auto", "nospeech"))
        self.abilities = Abilities(languages, detects_language=True, itn=True, tags=True, words=True)
        nothing = int(self.pieces.piece_to_id("<|nospeech|>"))
        self.nospeech = None if nothing == int(self.pieces.unk_id()) else nothing
        self.frame_s = self.frontend.frame_shift * self.frontend.lfr_n / 1000

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
            return [self.read(output[row, :length]) for row, length in enumerate(lengths.tolist())]

    def queries(self, mode: Mode) -> Any:
        language = self.model.lid_dict.get(mode.language, 0)
        style = self.model.textnorm_dict["withitn" if mode.itn else "woitn"]
        return self.model.embed(torch.tensor([[language, *EVENT_QUERIES, style]], device=self.device))

    def read(self, frames: Any) -> Heard:
        """Greedy CTC: the likeliest piece of each frame, repetitions and blanks dropped."""
        scores = self.model.ctc.ctc_lo(frames)
        best, pieces = scores.max(-1)
        norm = torch.logsumexp(scores, -1)
        chances = (best - norm)[TAGS:].cpu().numpy()
        silent = None if self.nospeech is None else float((scores[0, self.nospeech] - norm[0]).exp())
        ids = pieces.cpu().numpy()
        starts, ends = runs(ids[TAGS:])
        spoken = ids[TAGS:][starts] != self.model.blank_id
        starts, ends = starts[spoken], ends[spoken]
        tokens = [int(one) for one in ids[TAGS:][starts]]
        language, emotion, event = (self.tag(int(one)) for one in ids[: TAGS - 1])
        return Heard(
            self.pieces.decode(tokens).strip(),
            tuple(tokens),
            self.words(tokens, starts, ends),
            None if language == "nospeech" else language,
            emotion,
            event,
            float(chances[starts].mean()) if tokens else float(chances.mean()) if len(chances) else None,
            silent,
        )

    def tag(self, piece: int) -> str | None:
        name = str(self.pieces.id_to_piece(piece))
        return name[2:-2] if name.startswith("<|") and name.endswith("|>") else None

    def words(self, tokens: Sequence[int], starts: Any, ends: Any) -> tuple[Word, ...]:
        names = [str(self.pieces.id_to_piece(token)) for token in tokens]
        times = [(self.time(start), self.time(end)) for start, end in zip(starts, ends, strict=True)]
        return grouped(names, times)

    def time(self, frame: int) -> float:
        return max(0.0, (float(frame) - 0.5) * float(self.frame_s))


def runs(values: Any) -> tuple[Any, Any]:
    """Where each run of equal values starts, and where it ends."""
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    changes = np.flatnonzero(np.diff(values)) + 1
    return np.concatenate(([0], changes)), np.concatenate((changes, [len(values)]))


def grouped(names: Sequence[str], times: Sequence[tuple[float, float]]) -> tuple[Word, ...]:
    """Pieces as words: a piece with a space before it or a character of a spaceless script begins one."""
    words: list[Word] = []
    fresh = True
    for name, (start, end) in zip(names, times, strict=True):
        fresh = fresh or name.startswith(SPACE)
        text = "".join(letter for letter in name.replace(SPACE, "") if not is_mark(letter))
        if not text:
            continue
        if fresh or is_wide(text) or not words or is_wide(words[-1].text):
            words.append(Word(text, start, end))
        else:
            words[-1] = Word(words[-1].text + text, words[-1].start, end)
        fresh = False
    return tuple(words)


def is_mark(letter: str) -> bool:
    return letter not in "'’-" and unicodedata.category(letter).startswith("P")
