"""What a model's own files say about answering: where an answer ends, and the sampling its authors recommend."""

from __future__ import annotations

from typing import Any

from workers.engines.textgen.sampling import Sampling


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: of the generation config, and of the tokenizer."""
    given = model.generation_config.eos_token_id
    ends = set(given) if isinstance(given, list) else {given}
    return frozenset(int(token) for token in ends | {tokenizer.eos_token_id} if token is not None)


def model_sampling(config: Any) -> Sampling:
    """The sampling the model's authors recommend, where they asked for sampling at all."""
    repetition = float(getattr(config, "repetition_penalty", None) or 1.0)
    if not config.do_sample:
        return Sampling(repetition=repetition)
    return Sampling(
        temperature=float(config.temperature if config.temperature is not None else 1.0),
        top_p=float(config.top_p or 1.0),
        top_k=int(config.top_k or 0),
        min_p=float(config.min_p or 0.0),
        repetition=repetition,
    )
