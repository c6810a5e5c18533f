"""The two further heads of bge-m3: weights of words, and one vector per token.

A model has them when `sparse_linear.pt` and `colbert_linear.pt` lie beside its weights. What comes out is what
FlagEmbedding calls `lexical_weights` and `colbert_vecs`: https://arxiv.org/abs/2402.03216, section 3.2. Must not
know requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workers.engines.padded import Ids

FILES = {"sparse": "sparse_linear.pt", "colbert": "colbert_linear.pt"}


@dataclass(frozen=True)
class Heads:
    """Two linear layers over the last hidden states."""

    sparse: Any
    colbert: Any
    silent: frozenset[int]

    @classmethod
    def load(cls, folder: str, tokenizer: Any, device: Any, dtype: Any) -> Heads | None:
        """The heads in a model's folder; None where it has none."""
        places = {name: Path(folder) / file for name, file in FILES.items()}
        if not all(place.is_file() for place in places.values()):
            return None
        layers = {name: linear(place).to(device, dtype) for name, place in places.items()}
        if layers["sparse"].out_features != 1:
            raise ValueError(f"{FILES['sparse']} must give one weight per token")
        marks = (tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id)
        silent = frozenset((*marks, tokenizer.pad_token_id, tokenizer.unk_token_id)) - {None}
        return cls(layers["sparse"], layers["colbert"], silent)

    @property
    def width(self) -> int:
        """Numbers in one token's vector."""
        return int(self.colbert.out_features)

    def weights(self, hidden: Any, rows: Sequence[Ids]) -> list[Mapping[str, float]]:
        """For each row the weight of each of its tokens (by id): the largest where it stands more than once.

        `hidden` has the shape (rows, longest, width), with each row at its beginning.
        """
        found = torch.relu(self.sparse(hidden)).squeeze(-1).float().cpu().tolist()
        return [self._largest(weights, ids) for weights, ids in zip(found, rows, strict=True)]

    def _largest(self, weights: Sequence[float], ids: Ids) -> dict[str, float]:
        largest: dict[str, float] = {}
        for weight, token in zip(weights, ids, strict=False):  # what follows the tokens is padding
            if weight > 0 and token not in self.silent:
                largest[str(token)] = max(weight, largest.get(str(token), 0.0))
        return largest

    def vectors(self, hidden: Any, rows: Sequence[Ids]) -> list[Any]:
        """For each row an array (tokens - 1, width): a vector of length one for each token after the first."""
        found = torch.nn.functional.normalize(self.colbert(hidden[:, 1:]), dim=-1).float().cpu().numpy()
        return [each[: len(ids) - 1] for each, ids in zip(found, rows, strict=True)]


def linear(file: Path) -> Any:
    """A linear layer from the state that was saved of it. Reads tensors only, never code."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    out, inner = state["weight"].shape
    layer = torch.nn.Linear(inner, out)
    layer.load_state_dict(state)
    return layer.eval().requires_grad_(requires_grad=False)
