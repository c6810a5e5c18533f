"""Vectors on the wire: OpenAI's list of embeddings, with bge-m3's further forms in the same entries.

Must not know models: vectors come as numpy arrays.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.engines import encoding
from workers.engines.failures import EngineFault

Vector = Any


@dataclass(frozen=True)
class Vectors:
    """What one input became: a vector, weights of its tokens, a vector per token."""

    dense: Vector
    sparse: Mapping[str, float] | None = None
    colbert: Any = None

    def finite(self) -> bool:
        arrays = [self.dense] if self.colbert is None else [self.dense, self.colbert]
        weights = () if self.sparse is None else self.sparse.values()
        return all(bool(np.isfinite(array).all()) for array in arrays) and all(map(math.isfinite, weights))


@dataclass(frozen=True)
class Form:
    """How a caller wants vectors written: `dense` false leaves the vector out, `dimensions` shortens it."""

    packed: bool = False
    dimensions: int | None = None
    dense: bool = True


def body(found: Sequence[Vectors], form: Form, model: str, used: int) -> bytes:
    """The answer, in pieces: one long call into the JSON encoder would hold up the model's thread.

    Raises EngineFault for numbers that JSON has not; they would be written as null.
    """
    if not all(each.finite() for each in found):
        raise EngineFault("The model answered with a vector that is no numbers.")
    entries = b",".join(encoding.dumps(entry(each, form, place)) for place, each in enumerate(found))
    tail = encoding.dumps({"model": model, "usage": {"prompt_tokens": used, "total_tokens": used}})
    return b'{"object":"list","data":[' + entries + b"]," + tail[1:]


def entry(found: Vectors, form: Form, place: int) -> dict[str, Any]:
    shown: dict[str, Any] = {"object": "embedding", "index": place}
    show = packed if form.packed else encoding.numbers
    if form.dense:
        shown["embedding"] = show(shorten(found.dense, form.dimensions))
    if found.sparse is not None:
        shown["sparse_embedding"] = found.sparse
    if found.colbert is not None:
        shown["colbert_embedding"] = [show(vector) for vector in found.colbert]
    return shown


def shorten(vector: Vector, dimensions: int | None) -> Vector:
    """The first numbers, at length one again."""
    if dimensions is None or dimensions == len(vector):
        return vector
    part = vector[:dimensions]
    norm = float(np.linalg.norm(part))
    return part / norm if norm > 0 else part


def packed(vector: Vector) -> str:
    """OpenAI's base64 form: 32-bit floats, little-endian."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
