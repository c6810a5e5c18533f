"""One answer of a vision model: transformers' `generate`, with tokens chosen as the text engine chooses them.

`generate` keeps the cache and runs the model; a logits processor picks each token by the request's own settings and
seed, tells the listener, and leaves `generate` no other choice. Must not know HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from workers.engines.textgen.sampling import Sequence, choose


@dataclass(frozen=True)
class Question:
    """One prompt that waits for its turn: the model's inputs, and how its answer is to be said."""

    inputs: Any
    sequence: Sequence


class Chooser(LogitsProcessor):
    """Picks the next token, says it to the sequence's listener, and rules out every other."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        [token] = choose([self.sequence], scores.float())
        self.sequence.listen(token)
        forced = torch.full_like(scores, -math.inf)
        forced[0, token.id] = 0.0
        return forced


class Ended(StoppingCriteria):
    """Whether the answer is whole."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((input_ids.size(0),), self.sequence.finished(), device=input_ids.device)


class Seer:
    """A loaded model. One answer at a time, on one thread."""

    def __init__(self, model: Any, pad: int) -> None:
        self.model = model
        # Sampling is ours; what the model's authors recommend has been read before.
        model.generation_config = GenerationConfig(pad_token_id=pad)
        self._go_on: Callable[[], None] = lambda: None
        for group in [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]:
            for layer in group:
                layer.register_forward_pre_hook(lambda layer, inputs: self._go_on())

    def answer(self, question: Question, go_on: Callable[[], None]) -> int:
        """Say the whole answer to the sequence's listener; gives the number of tokens.

        `go_on` is called before every layer, so that a caller who leaves frees the model at once, also while it still
        reads a long prompt; what it raises ends the run.
        """
        sequence = question.sequence
        self._go_on = go_on
        try:
            with torch.inference_mode():
                self.model.generate(
                    **question.inputs.to(self.model.device, dtype=self.model.dtype),
                    max_new_tokens=sequence.limit,
                    do_sample=False,
                    logits_processor=LogitsProcessorList([Chooser(sequence)]),
                    stopping_criteria=StoppingCriteriaList([Ended(sequence)]),
                )
        finally:
            self._go_on = lambda: None
        return len(sequence.said)
