"""One chosen token, as sampling gives it and answers show it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """Logprobs are those of the model itself, before temperature and penalties."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
