"""Choosing the next token of every running sequence, each by its own settings and its own seed.

transformers' batching shares one random generator between all requests, so a seed could not be honoured;
here every sequence draws from its own. Owns the arithmetic on logits; must not know HTTP nor how batches
are formed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

import torch

from workers.engines.textgen.guide import Guide
from workers.engines.textgen.token import Token

REJECTIONS = 4


@dataclass(frozen=True)
class Sampling:
    """How one request wants its tokens chosen."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0
    bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature < 1e-5

    @property
    def filtered(self) -> bool:
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0

    @property
    def adjusted(self) -> bool:
        return bool(self.bias or self.presence or self.frequency or self.repetition != 1.0)


@dataclass(eq=False)
class Sequence:
    """One running answer: its settings, what it said so far, and who listens."""

    id: str
    prompt: list[int]
    sampling: Sampling
    seed: int
    limit: int
    ends: frozenset[int]
    listen: Callable[[Token | Exception], None]
    guide: Guide | None = None
    said: list[int] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def __deepcopy__(self, memo: Any) -> Sequence:
        # The batching copies a request's settings when it moves it; the sequence stays the same one.
        return self

    def say(self, token: int) -> None:
        self.said.append(token)
        self.counts[token] = self.counts.get(token, 0) + 1

    def finished(self) -> bool:
        return len(self.said) >= self.limit or (bool(self.said) and self.said[-1] in self.ends)


def choose(sequences: Items[Sequence], logits: torch.Tensor) -> list[Token]:
    """One token for every row of `logits`, told to its sequence."""
    adjusted = adjust(sequences, logits)
    chosen = adjusted.argmax(dim=-1).tolist()
    rows = [row for row, sequence in enumerate(sequences) if not sequence.sampling.greedy]
    if rows:
        drawn = draw([sequences[row] for row in rows], adjusted[rows])
        for row, token in zip(rows, drawn, strict=True):
            chosen[row] = token
    for row, sequence in enumerate(sequences):
        if sequence.guide is not None:
            chosen[row] = guided(sequence, sequence.guide, adjusted[row], chosen[row])
        sequence.say(chosen[row])
    return with_logprobs(sequences, logits, chosen)


def adjust(sequences: Items[Sequence], logits: torch.Tensor) -> torch.Tensor:
    """Logits with every sequence's bias and penalties; the same tensor when nobody asked for any."""
    if not any(sequence.sampling.adjusted for sequence in sequences):
        return logits
    result = logits.clone()
    for row, sequence in enumerate(sequences):
        if sequence.sampling.adjusted:
            penalise(sequence, result[row])
    return result


def penalise(sequence: Sequence, row: torch.Tensor) -> None:
    want = sequence.sampling
    if want.repetition != 1.0:
        seen = torch.tensor(sorted({*sequence.prompt, *sequence.counts}), dtype=torch.long, device=row.device)
        values = row[seen]
        row[seen] = torch.where(values > 0, values / want.repetition, values * want.repetition)
    if sequence.counts and (want.presence or want.frequency):
        ids = torch.tensor(list(sequence.counts), dtype=torch.long, device=row.device)
        times = torch.tensor(list(sequence.counts.values()), dtype=row.dtype, device=row.device)
        row[ids] -= want.presence + want.frequency * times
    for token, value in want.bias:
        row[token] += value


def draw(sequences: Items[Sequence], logits: torch.Tensor) -> list[int]:
    """Sample each row by inverting its cumulative distribution at the sequence's own random number."""
    device = logits.device
    heat = torch.tensor([each.sampling.temperature for each in sequences], device=device).unsqueeze(1)
    probabilities = torch.softmax(logits / heat, dim=-1)
    order: torch.Tensor | None = None
    if any(each.sampling.filtered for each in sequences):
        probabilities, order = keep_likely(sequences, probabilities)
    mass = probabilities.double().cumsum(dim=-1)
    points = torch.tensor([each.rng.random() for each in sequences], dtype=torch.double, device=device)
    # right=True: a point on a step belongs to the next token, so one of probability zero is never drawn.
    found = torch.searchsorted(mass, (points * mass[:, -1]).unsqueeze(1), right=True)
    found = found.clamp(max=probabilities.size(1) - 1)
    if order is not None:
        found = order.gather(1, found)
    return [int(token) for token in found.squeeze(1).tolist()]


def keep_likely(sequences: Items[Sequence], probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply top_k, top_p and min_p per row; gives sorted probabilities and the token at each place."""
    device = probabilities.device
    ranked, order = probabilities.sort(dim=-1, descending=True)
    size = ranked.size(1)
    top_k = torch.tensor([each.sampling.top_k or size for each in sequences], device=device).unsqueeze(1)
    top_p = torch.tensor([each.sampling.top_p for each in sequences], device=device).unsqueeze(1)
    min_p = torch.tensor([each.sampling.min_p for each in sequences], device=device).unsqueeze(1)
    before = ranked.cumsum(dim=-1) - ranked
    drop = (torch.arange(size, device=device) >= top_k) | (before >= top_p) | (ranked < min_p * ranked[:, :1])
    drop[:, 0] = False
    return ranked.masked_fill(drop, 0.0), order


def guided(sequence: Sequence, guide: Guide, row: torch.Tensor, wanted: int) -> int:
    """The token that the sequence's guide allows: the wanted one, a fresh draw, or the likeliest allowed."""
    forced = guide.forced(row)
    if forced is not None:
        guide.accept(forced)
        return forced
    if guide.accept(wanted):
        return wanted
    row = row.clone()
    if not sequence.sampling.greedy:
        for _ in range(REJECTIONS):
            row[wanted] = -math.inf
            wanted = draw([sequence], row.unsqueeze(0))[0]
            if guide.accept(wanted):
                return wanted
    for token in row.argsort(descending=True).tolist():
        if guide.accept(token):
            return int(token)
    return guide.end


def with_logprobs(sequences: Items[Sequence], logits: torch.Tensor, chosen: Items[int]) -> list[Token]:
    asked = [each.sampling.top_logprobs for each in sequences]
    if all(number is None for number in asked):
        return [Token(token) for token in chosen]
    logprobs = torch.log_softmax(logits, dim=-1)
    tokens = []
    for row, (token, number) in enumerate(zip(chosen, asked, strict=True)):
        if number is None:
            tokens.append(Token(token))
            continue
        values, ids = logprobs[row].topk(number)
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        tokens.append(Token(token, float(logprobs[row, token]), top))
    return tokens
