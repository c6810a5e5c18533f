"""Punctuation by FunASR's ct-punc, while the text still grows.

The model reads groups of twenty words with what is left of the last unfinished sentence, as FunASR's own loop does,
so marks are final as soon as a sentence ends and the result is the one for the whole text at once. Words keep their
segments. For one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from workers.engines.recognition.folders import Loaded
from workers.engines.recognition.hearing import gap

GROUP = 20
LONGEST_SENTENCE = 200
LATIN = {"，": ",", "。": ".", "？": "?", "、": ","}
ENDS = ("。", "？")


@dataclass(frozen=True)
class Unit:
    """A word or a character, of which segment it is, and the mark after it."""

    text: str
    segment: int
    mark: str = ""


class Punctuator:
    """One CTTransformer."""

    def __init__(self, loaded: Loaded, device: str) -> None:
        if not hasattr(loaded.model, "punc_list"):
            raise ValueError(f"the punc_model is a {loaded.kind}, which does not punctuate")
        self.model, self.tokenizer, self.device = loaded.model, loaded.tokenizer, device
        self.marks = ["" if mark in ("_", "<unk>") else str(mark) for mark in self.model.punc_list]
        self.full_stop = self.marks[self.model.sentence_end_id]

    def session(self) -> Punctuation:
        return Punctuation(self)

    def units(self, text: str, segment: int) -> list[Unit]:
        from funasr.models.ct_transformer.utils import split_words

        return [Unit(word, segment) for word in split_words(text, jieba_usr_dict=self.model.jieba_usr_dict)]

    def predict(self, units: Sequence[Unit]) -> list[str]:
        """The mark after each unit."""
        ids = torch.tensor([self.tokenizer.encode([unit.text for unit in units])], device=self.device)
        lengths = torch.tensor([ids.shape[1]], dtype=torch.int32, device=self.device)
        with torch.inference_mode():
            scores, _ = self.model.punc_forward(text=ids, text_lengths=lengths)
        return [self.marks[one] for one in scores[0].argmax(-1).tolist()]


@dataclass
class Punctuation:
    """One text. `feed` takes a segment's text and gives the units whose marks are final now."""

    punctuator: Punctuator
    waiting: list[Unit] = field(default_factory=list)
    open: list[Unit] = field(default_factory=list)
    capital: bool = True

    def feed(self, text: str, segment: int) -> list[Unit]:
        self.waiting += self.punctuator.units(text, segment)
        done: list[Unit] = []
        # The last group is special, so one is always kept back.
        while len(self.waiting) > GROUP:
            group, self.waiting = self.waiting[:GROUP], self.waiting[GROUP:]
            done += self._close(self.open + group)
        return self._written(done)

    def finish(self) -> list[Unit]:
        """The rest of the text; it ends with a mark."""
        units = self.open + self.waiting
        self.open, self.waiting = [], []
        if not units:
            return []
        marks = self.punctuator.predict(units)
        if marks[-1] not in ENDS:
            marks[-1] = self.punctuator.full_stop
        return self._written(marked(units, marks))

    def _close(self, units: list[Unit]) -> list[Unit]:
        """The whole sentences among the units; the others stay open."""
        marks = self.punctuator.predict(units)
        inner = range(len(units) - 2, 1, -1)
        end = next((place for place in inner if marks[place] in ENDS), -1)
        comma = next((place for place in inner if marks[place] == "，"), -1)
        if end < 0 and len(units) > LONGEST_SENTENCE and comma >= 0:
            end, marks[comma] = comma, self.punctuator.full_stop
        self.open = units[end + 1 :]
        return marked(units[: end + 1], marks[: end + 1])

    def _written(self, units: Sequence[Unit]) -> list[Unit]:
        """Latin marks after Latin words, and a capital where a sentence begins."""
        written = []
        for unit in units:
            latin = len(unit.text[0].encode()) == 1
            text = unit.text.capitalize() if latin and self.capital else unit.text
            self.capital = unit.mark in ENDS
            written.append(Unit(text, unit.segment, LATIN.get(unit.mark, unit.mark) if latin else unit.mark))
        return written


def marked(units: Sequence[Unit], marks: Sequence[str]) -> list[Unit]:
    return [Unit(unit.text, unit.segment, mark) for unit, mark in zip(units, marks, strict=True)]


def surface(units: Sequence[Unit]) -> str:
    """The text of units with their marks."""
    text = ""
    for unit in units:
        text += gap(text, unit.text) + unit.text + unit.mark
    return text
