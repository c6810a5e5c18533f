"""Counting tokens in any thread, beside a model that uses the same tokenizer.

A fast tokenizer keeps the padding and truncation of each call in itself. Counted by the model's own one, a prompt
would get the length it is padded to, and the model's thread a batch without padding. Must not know models.
"""

from __future__ import annotations

import copy
from typing import Any


def for_counting(tokenizer: Any) -> Any:
    """A copy that is never to pad or cut; then several threads may call it at once."""
    mine = copy.deepcopy(tokenizer)
    mine(
        ""
    )  # what padding and truncation the original had are switched off here, before a second thread looks
    return mine
