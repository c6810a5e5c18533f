"""The embedding engine: `/v1/embeddings` on sentence-transformers.

Options: `batch_tokens` (padded tokens per run, default 1024 on a processor, where longer rows of unequal
texts only pad more, else 2048), `batch_items` (texts per run, default 64), `wait_ms` (how long an idle
engine waits for company, default 2), `truncate` (cut over-long inputs instead of refusing, default
false), `threads` (torch threads, default all cores), `dtype` (default float32), `normalize` (default
false: as the model is built), `trust_remote_code` (default false).

Tokenizing and encoding the answer happen outside the model's thread.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Mapping, Sequence
from typing import Any

# Before torch: its OpenMP threads spin while they wait for each other, and on a machine with other work to do a
# spinning wait costs a hundred times what it waits for (seen: 6 tokens/s in place of 600).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from workers.engines import encoding
from workers.engines.asgi import Call, EngineApp, Handler, Reply
from workers.engines.base import Engine, main
from workers.engines.failures import BadRequest, ContextLengthExceeded
from workers.engines.fields import Fields, wrong_type
from workers.engines.launch import Launch, Options
from workers.engines.window import Abandoned, Batch, Window, near_in_length

MOST_INPUTS = 2048
Ids = list[int]
Vector = Any


class EmbedEngine(Engine):
    """One embedding model."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        self.batch_tokens = options.take("batch_tokens", 1024 if launch.device.startswith("cpu") else 2048)
        self.batch_items = options.take("batch_items", 64)
        self.wait_s = options.take("wait_ms", 2.0) / 1000
        self.truncate = options.take("truncate", False)
        self.threads = options.take("threads", 0)
        self.dtype = options.take("dtype", "float32")
        self.normalize = options.take("normalize", False)
        self.trusted = options.take("trust_remote_code", False)
        options.close()

    def load(self) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        torch.set_num_threads(self.threads or len(os.sched_getaffinity(0)))
        model: Any = SentenceTransformer(
            self.launch.model,
            device=self.launch.device,
            local_files_only=True,
            trust_remote_code=self.trusted,
            model_kwargs={"dtype": getattr(torch, self.dtype)},
        )
        self.model = model.eval()
        self.tokenizer: Any = getattr(self.model, "tokenizer", None)
        if not getattr(self.tokenizer, "is_fast", False):
            raise ValueError("the model needs a transformer with a fast tokenizer")
        self.size = int(self.model.get_embedding_dimension())
        self.longest = int(self.model.max_seq_length)
        self.head, self.tail = special_frame(self.tokenizer)
        self.prompt = self.model.prompts.get(self.model.default_prompt_name or "", "")
        self.running: Batch[Ids, Vector] | None = None
        for layer in transformer_layers(self.model):
            layer.register_forward_pre_hook(self._stop_if_abandoned)
        pick = near_in_length(len, self.batch_items, self.batch_tokens)
        self.window: Window[Ids, Vector] = Window(self.run_batch, pick, self.wait_s)
        self.run_batch(Batch())
        self.window.start()

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/embeddings"): self.embed}

    def unload(self) -> None:
        self.window.stop()

    def details(self) -> Mapping[str, Any]:
        counts = {
            "batches": self.window.batches,
            "items": self.window.items,
            "waiting": self.window.waiting(),
        }
        return {"context": self.longest, "dimensions": self.size, **counts}

    def _stop_if_abandoned(self, layer: Any, inputs: Any) -> None:
        """Between layers, so that a caller who leaves frees the model within one layer's time."""
        if self.running is not None and self.running.tickets and self.running.abandoned():
            raise Abandoned

    def run_batch(self, batch: Batch[Ids, Vector]) -> Sequence[Vector]:
        """One forward pass on the model's thread. An empty batch warms the model up."""
        rows = batch.items or [self.head + self.tail or [0]]
        self.running = batch
        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        right = self.tokenizer.padding_side == "right"
        ids = np.full((len(rows), width), pad, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            where = slice(0, len(row)) if right else slice(width - len(row), width)
            ids[place, where] = row
            mask[place, where] = 1
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        with torch.inference_mode():
            moved = {name: value.to(self.launch.device) for name, value in features.items()}
            vectors = self.model(moved)["sentence_embedding"].float()
            if self.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=1)
        return list(vectors.cpu().numpy()) if batch.tickets else ()

    async def embed(self, call: Call) -> Reply:
        fields = Fields(call.json())
        self.app.check_model(fields)
        given = fields.raw("input")
        form = fields.choice("encoding_format", ("float", "base64"), "float")
        dimensions = fields.integer("dimensions", 1, self.size)
        fields.close()
        inputs = read_input(given, len(self.tokenizer))
        rows = await asyncio.to_thread(self.tokenize, inputs)
        self.check_length(rows)
        total = len(rows)
        vectors = await self.window.submit(rows, lambda left: call.run.report(total - left, total))
        used = sum(map(len, rows))
        return Reply(await asyncio.to_thread(self.body, vectors, form, dimensions, used))

    def tokenize(self, inputs: Sequence[str | Ids]) -> list[Ids]:
        """Rows of tokens with the model's own first and last tokens."""
        texts = [self.prompt + each for each in inputs if isinstance(each, str)]
        cut = {"truncation": True, "max_length": self.longest} if self.truncate else {"truncation": False}
        encoded = iter(self.tokenizer(texts, padding=False, **cut)["input_ids"] if texts else ())
        return [next(encoded) if isinstance(each, str) else self.frame(each) for each in inputs]

    def frame(self, ids: Ids) -> Ids:
        """Given tokens between the special ones, unless they have them already."""
        framed = ids[: len(self.head)] == self.head and ids[len(ids) - len(self.tail) :] == self.tail
        if not framed:
            room = self.longest - len(self.head) - len(self.tail)
            ids = [*self.head, *(ids[:room] if self.truncate else ids), *self.tail]
        return ids

    def check_length(self, rows: Sequence[Ids]) -> None:
        for place, row in enumerate(rows):
            if len(row) > self.longest:
                raise ContextLengthExceeded(
                    f"Input {place} has {len(row)} tokens; this model reads {self.longest}.", param="input"
                )

    def body(self, vectors: Sequence[Vector], form: str, dimensions: int | None, used: int) -> bytes:
        """The answer, in pieces: one long call into the JSON encoder would hold up the model's thread."""
        entries = []
        for place, vector in enumerate(vectors):
            short = vector if dimensions is None or dimensions == self.size else shorten(vector, dimensions)
            shown = packed(short) if form == "base64" else encoding.numbers(short)
            entries.append(encoding.dumps({"object": "embedding", "index": place, "embedding": shown}))
        usage = {"prompt_tokens": used, "total_tokens": used}
        tail = encoding.dumps({"model": self.app.served_name, "usage": usage})
        return b'{"object":"list","data":[' + b",".join(entries) + b"]," + tail[1:]


def shorten(vector: Vector, dimensions: int) -> Vector:
    """The first numbers, at length one again."""
    part = vector[:dimensions]
    norm = float(np.linalg.norm(part))
    return part / norm if norm > 0 else part


def packed(vector: Vector) -> str:
    """OpenAI's base64 form: 32-bit floats, little-endian."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def read_input(value: Any, vocabulary: int) -> list[str | Ids]:
    """A text, texts, tokens, or lists of tokens."""
    inputs = [value] if isinstance(value, str) else value
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest("'input' must be a string or a non-empty array.", param="input")
    if is_tokens(inputs, vocabulary):
        inputs = [inputs]
    if len(inputs) > MOST_INPUTS:
        raise BadRequest(f"'input' may hold at most {MOST_INPUTS} entries.", param="input")
    texts = all(isinstance(each, str) for each in inputs)
    if not texts and not all(isinstance(each, list) and is_tokens(each, vocabulary) for each in inputs):
        raise wrong_type("input", f"a string, strings, or arrays of tokens below {vocabulary}")
    if not all(inputs):
        raise BadRequest("'input' must not hold an empty text.", param="input")
    return inputs


def is_tokens(value: list[Any], vocabulary: int) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < vocabulary for one in value)


def special_frame(tokenizer: Any) -> tuple[Ids, Ids]:
    """The tokens that this tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next((at for at in range(len(full)) if full[at : at + len(bare)] == bare), 0)
    return list(full[:start]), list(full[start + len(bare) :])


def transformer_layers(model: Any) -> list[Any]:
    """The blocks of the model: the members of its longest module list."""
    lists = [list(module) for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])


if __name__ == "__main__":
    main(EmbedEngine, "workers.engines.embed")
