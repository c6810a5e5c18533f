"""How much of a prompt the text encoders read, and the embedding of prompts longer than one window of theirs.

A CLIP encoder reads 77 tokens. A longer prompt is cut into windows, each encoded alone, and the states are joined: the
denoiser's attention takes a context of any length. That is how the community's programs do it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from workers.engines.counting import for_counting

MOST_WINDOWS = 8


class Prompts:
    """Copies of a pipeline's tokenizers. All but `embed` may be called in any thread."""

    def __init__(self, pipe: Any) -> None:
        pairs = [(f"tokenizer{end}", f"text_encoder{end}") for end in ("", "_2", "_3")]
        found = [(getattr(pipe, one, None), getattr(pipe, two, None)) for one, two in pairs]
        self._tokenizers = [
            (for_counting(words), longest(words, encoder)) for words, encoder in found if words is not None
        ]
        # Only where the encoder's states are all that the denoiser gets.
        self.windowed = pipe.__class__.__name__.startswith("StableDiffusionPipeline")
        self._pipe = pipe

    def tokens(self, text: str) -> int:
        """The prompt's length for the tokenizer that reads most of it, without special tokens."""
        return min((count(words, text) for words, _ in self._tokenizers), default=0)

    def windows(self, *texts: str) -> int:
        """How many windows the longest of the texts takes; more than one means too long where not `windowed`."""
        if not self._tokenizers:
            return 1
        needed = [
            max(math.ceil(count(words, text) / (size - 2)) for text in texts)
            for words, size in self._tokenizers
        ]
        return max(1, min(needed))

    def embed(self, texts: Sequence[str], windows: int, clip_skip: int) -> Any:
        """States of shape (texts, windows * length, width), `clip_skip` layers before the last."""
        words, size = self._tokenizers[0]
        room = size - 2
        rows = []
        for text in texts:
            ids = words(text, add_special_tokens=False)["input_ids"][: windows * room]
            for first in range(0, windows * room, room):
                row = [words.bos_token_id, *ids[first : first + room], words.eos_token_id]
                rows.append(row + [words.pad_token_id] * (size - len(row)))
        encoder = self._pipe.text_encoder
        # There is no public name for it: with offloading it is not where the weights are.
        ids = torch.tensor(rows).to(self._pipe._execution_device)  # noqa: SLF001
        with torch.no_grad():
            states = encoder(ids, output_hidden_states=True)
            last = states.last_hidden_state
            if clip_skip:
                norm = getattr(encoder, "text_model", encoder).final_layer_norm
                last = norm(states.hidden_states[-(clip_skip + 1)])
        return last.reshape(len(texts), windows * size, -1)


def count(words: Any, text: str) -> int:
    return len(words(text, add_special_tokens=False)["input_ids"]) if text else 0


def longest(words: Any, encoder: Any) -> int:
    """The window of an encoder: what its tokenizer says, unless its positions end earlier."""
    positions = (
        getattr(getattr(encoder, "config", None), "max_position_embeddings", None) or words.model_max_length
    )
    return int(min(words.model_max_length, positions))
