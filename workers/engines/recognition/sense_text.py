"""What SenseVoice's output frames say: text, language, emotion and events by greedy CTC.

The decoding is done here, because FunASR's neither gives tokens and probabilities nor survives its own timestamps
for every tokenizer. Times follow its convention: a frame is 60 ms, and what a frame hears lies 30 ms before it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from workers.engines.recognition.hearing import Heard, Word, is_wide

TAGS = 4  # language, emotion, event, style: the first four frames
SPACE = "\u2581"


class SenseText:
    """Reads frames of scores. `pieces` is a sentencepiece processor."""

    def __init__(self, pieces: Any, frontend: Any, blank: int) -> None:
        self.pieces, self.blank = pieces, blank
        nothing = int(pieces.piece_to_id("<|nospeech|>"))
        self.nospeech = None if nothing == int(pieces.unk_id()) else nothing
        self.frame_s = frontend.frame_shift * frontend.lfr_n / 1000

    def read(self, scores: Any) -> Heard:
        """Greedy CTC: the likeliest piece of each frame, repetitions and blanks dropped. Frames by pieces."""
        best, pieces = scores.max(-1)
        norm = torch.logsumexp(scores, -1)
        chances = (best - norm)[TAGS:].cpu().numpy()
        silent = None if self.nospeech is None else float((scores[0, self.nospeech] - norm[0]).exp())
        ids = pieces.cpu().numpy()
        starts, ends = runs(ids[TAGS:])
        spoken = ids[TAGS:][starts] != self.blank
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
