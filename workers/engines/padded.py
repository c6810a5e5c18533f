"""What engines on sentence-transformers share: rows of tokens, run through one model in padded batches.

Owns the options of batching, torch's threads, the padding of rows, and leaving a run between two layers. Must not
know what a row means or what comes out of the model.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from workers.engines.launch import Options
from workers.engines.window import Abandoned, Batch, Pick, Window, among_equals, near_in_length

Ids = list[int]
Key = TypeVar("Key", bound=Hashable)
DTYPES = ("float32", "bfloat16", "float16")
MOST_AT_ONCE = 8  # more threads than these would mostly wait for Python's lock


@dataclass(frozen=True)
class Row:
    """One line of a batch: tokens, and their types where the model tells two texts apart by them."""

    ids: Ids
    types: Ids | None = None

    def __len__(self) -> int:
        return len(self.ids)


RowType = TypeVar("RowType", bound=Row)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batching:
    """The options that every engine with padded batches has."""

    tokens: int
    items: int
    wait_s: float
    threads: int
    at_once: int
    dtype: str
    trusted: bool

    @classmethod
    def take(cls, options: Options, device: str) -> Batching:
        """Read them.

        A processor gets many small batches at once, each on its share of the threads: threads that meet after every
        layer wait for the one that lost its core, and larger batches of unequal texts only pad more.
        """
        cpu = device.startswith("cpu")
        threads = options.take("threads", 0) or len(os.sched_getaffinity(0))
        batching = cls(
            tokens=options.take("batch_tokens", 256 if cpu else 16384),
            items=options.take("batch_items", 64),
            wait_s=options.take("wait_ms", 2.0) / 1000,
            threads=threads,
            at_once=options.take("batches_at_once", min(threads, MOST_AT_ONCE) if cpu else 1),
            dtype=options.take("dtype", "float32"),
            trusted=options.take("trust_remote_code", False),
        )
        counts = batching.tokens, batching.items, batching.threads, batching.at_once
        if min(counts) < 1 or batching.wait_s < 0:
            raise ValueError(
                "'batch_tokens', 'batch_items' and 'batches_at_once' must be at least 1, the others not negative"
            )
        if batching.dtype not in DTYPES:
            raise ValueError(f"option 'dtype' must be one of {', '.join(DTYPES)}")
        return batching

    def prepare(self) -> dict[str, Any]:
        """Settle torch and transformers for this process; the arguments with which a model is loaded."""
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        torch.set_num_threads(self.threads)
        return {
            "local_files_only": True,
            "trust_remote_code": self.trusted,
            "model_kwargs": {"dtype": getattr(torch, self.dtype)},
        }


class PaddedRuns(Generic[RowType, Result]):
    """One model behind a batching window.

    `forward` gets the padded tensors and the rows, in inference mode on one of the model's threads, and returns one
    result per row. Only rows for which `alike` gives the same share a batch.
    """

    def __init__(
        self,
        model: Any,
        batching: Batching,
        forward: Callable[[dict[str, Any], Sequence[RowType]], Sequence[Result]],
        alike: Callable[[RowType], object] | None = None,
    ) -> None:
        self._tokenizer = model.tokenizer
        self._device = model.device
        self._forward = forward
        self._threads = batching.threads
        self._local = threading.local()
        for layer in layers_of(model):
            layer.register_forward_pre_hook(self._leave_if_abandoned)
        pick: Pick[RowType] = near_in_length(len, batching.items, batching.tokens)
        if alike is not None:
            pick = among_equals(alike, pick)
        self.window: Window[RowType, Result] = Window(self._run, pick, batching.wait_s, batching.at_once)

    def start(self, first: RowType) -> None:
        """Warm the model up with one row, then serve."""
        self._compute([first])
        self.window.start()

    async def submit(self, rows: Sequence[RowType], step: Callable[[int], None]) -> list[Result]:
        return await self.window.submit(rows, step)

    def stop(self) -> None:
        self.window.stop()

    def counts(self) -> dict[str, int]:
        """What `/health` adds: runs so far, rows in them, and rows that wait."""
        window = self.window
        return {"batches": window.batches, "items": window.items, "waiting": window.waiting()}

    def _run(self, batch: Batch[RowType, Result]) -> Sequence[Result]:
        torch.set_num_threads(max(1, self._threads // self.window.abreast()))
        self._local.batch = batch
        try:
            return self._compute(batch.items)
        finally:
            self._local.batch = None

    def _compute(self, rows: Sequence[RowType]) -> Sequence[Result]:
        with torch.inference_mode():
            features = padded(rows, self._tokenizer)
            return self._forward({name: each.to(self._device) for name, each in features.items()}, rows)

    def _leave_if_abandoned(self, layer: Any, inputs: Any) -> None:
        """Between layers, so that a caller who leaves frees the model within one layer's time."""
        batch: Batch[RowType, Result] | None = getattr(self._local, "batch", None)
        if batch is not None and batch.abandoned():
            raise Abandoned


def padded(rows: Sequence[Row], tokenizer: Any) -> dict[str, Any]:
    """The rows as tensors of shape (rows, longest), filled up on the tokenizer's side."""
    shape = len(rows), max(map(len, rows))
    ids = np.full(shape, tokenizer.pad_token_id or 0, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    types = None if rows[0].types is None else np.full(shape, tokenizer.pad_token_type_id, dtype=np.int64)
    right = tokenizer.padding_side == "right"
    for place, row in enumerate(rows):
        where = slice(0, len(row)) if right else slice(shape[1] - len(row), shape[1])
        ids[place, where] = row.ids
        mask[place, where] = 1
        if types is not None:
            types[place, where] = row.types
    arrays = {"input_ids": ids, "attention_mask": mask} | ({} if types is None else {"token_type_ids": types})
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def layers_of(model: Any) -> list[Any]:
    """The blocks of the model: the members of its longest module list."""
    lists = [list(module) for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])


def distinct(values: Sequence[Key]) -> tuple[list[Key], list[int]]:
    """Each value once, in order of first appearance; and for each given value its place among those."""
    places: dict[Key, int] = {}
    where = [places.setdefault(value, len(places)) for value in values]
    return list(places), where


def fast_tokenizer(model: Any) -> Any:
    """The model's tokenizer. Raises ValueError where it has none of the fast kind."""
    tokenizer = getattr(model, "tokenizer", None)
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError("the model needs a transformer with a fast tokenizer")
    return tokenizer


def tokens_of(tokenizer: Any, texts: Sequence[str], *, special: bool) -> list[Ids]:
    """The texts as tokens, uncut and unpadded: to cut here would change a setting that other threads share."""
    if not texts:
        return []
    ids: list[Ids] = tokenizer(
        list(texts),
        add_special_tokens=special,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    return ids


def context_of(model: Any) -> int:
    """Tokens that the model reads at most: what it says, and no more than it has positions for."""
    longest = int(model.max_seq_length)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa counts positions from the one after its padding.
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            longest = min(longest, module.num_embeddings - unused)
    return longest


def vocabulary_of(model: Any) -> int:
    """How many tokens both the tokenizer and the model know."""
    rows = getattr(model.transformers_model.get_input_embeddings(), "num_embeddings", None)
    return min(len(model.tokenizer), rows or len(model.tokenizer))
