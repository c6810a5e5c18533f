"""The embedding engine: `/v1/embeddings` on sentence-transformers.

Options: those of `padded.Batching`; `truncate` (cut over-long inputs instead of refusing, default false),
`normalize` (default false: as the model is built) and `prompts` (texts by name, beside those of the model's folder).

Tokenizing and encoding the answer happen outside the model's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from workers.engines.asgi import Call, EngineApp, Handler, Reply
from workers.engines.base import Engine, main
from workers.engines.bgem3 import Heads
from workers.engines.failures import BadRequest, ContextLengthExceeded, UnsupportedParameter
from workers.engines.fields import Fields, wrong_type
from workers.engines.launch import Launch, Options
from workers.engines.padded import (
    Batching,
    Ids,
    PaddedRuns,
    Row,
    context_of,
    distinct,
    fast_tokenizer,
    tokens_of,
    vocabulary_of,
)
from workers.engines.prompts import Prompts
from workers.engines.vectors import Form, Vectors, body

MOST_INPUTS = 2048
MOST_NUMBERS = 2**24  # in the vectors of single tokens of one request: some 200 MB of JSON
TOKENIZED = (
    "Texts that were made into tokens by another model's tokenizer cannot be read."
    " LangChain's OpenAIEmbeddings sends such tokens unless it is made with check_embedding_ctx_length=False."
)
Input = str | tuple[int, ...]


@dataclass(frozen=True)
class Text(Row):
    """One input as tokens, and what is wanted of it."""

    prompt: int = 0  # tokens of the prompt, where the model leaves them out of its mean
    sparse: bool = False
    colbert: bool = False


@dataclass(frozen=True)
class Wanted:
    """One embeddings request."""

    inputs: list[Input]
    prompt: str
    truncate: bool
    form: Form
    sparse: bool
    colbert: bool


class EmbedEngine(Engine):
    """One embedding model."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        self.batching = Batching.take(options, launch.device)
        self.truncate = options.take("truncate", False)
        self.normalize = options.take("normalize", False)
        self.configured_prompts = options.take("prompts", {})
        options.close()

    def load(self) -> None:
        model: Any = SentenceTransformer(
            self.launch.model, device=self.launch.device, **self.batching.prepare()
        )
        self.model = model.eval()
        self.tokenizer = fast_tokenizer(model)
        self.size = int(model.get_embedding_dimension())
        self.longest, self.vocabulary = context_of(model), vocabulary_of(model)
        self.head, self.tail = special_frame(self.tokenizer)
        self.prompts = Prompts.of(model, self.configured_prompts)
        self.skips_prompt = not all(getattr(module, "include_prompt", True) for module in model)
        self.heads = Heads.load(self.launch.model, self.tokenizer, model.device, model.dtype)
        self.runs: PaddedRuns[Text, Vectors] = PaddedRuns(
            model, self.batching, self.forward, (lambda text: text.prompt) if self.skips_prompt else None
        )
        self.runs.start(Text(self.head + self.tail or [0]))

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/embeddings"): self.embed}

    def unload(self) -> None:
        self.runs.stop()

    def details(self) -> Mapping[str, Any]:
        return {"context": self.longest, "dimensions": self.size, **self.runs.counts()}

    def forward(self, features: dict[str, Any], rows: Sequence[Text]) -> Sequence[Vectors]:
        if self.skips_prompt:
            features["prompt_length"] = rows[0].prompt
        out = self.model(features)
        dense = out["sentence_embedding"].float()
        if self.normalize:
            dense = torch.nn.functional.normalize(dense, dim=1)
        vectors = [Vectors(each) for each in dense.cpu().numpy()]
        if self.heads is None or not any(row.sparse or row.colbert for row in rows):
            return vectors
        return further(self.heads, out["token_embeddings"], rows, vectors)

    async def embed(self, call: Call) -> Reply:
        wanted = self.read(Fields(call.json()))
        inputs, places = distinct(wanted.inputs)
        rows = await asyncio.to_thread(self.rows, wanted, inputs, places)
        total = len(rows)
        vectors = await self.runs.submit(rows, lambda left: call.run.report(total - left, total))
        found = [vectors[place] for place in places]
        used = sum(len(rows[place]) for place in places)
        return Reply(await asyncio.to_thread(body, found, wanted.form, self.app.served_name, used))

    def read(self, fields: Fields) -> Wanted:
        self.app.check_model(fields)
        inputs = read_input(fields.raw("input"), self.vocabulary)
        prompt, asked_by = self.prompts.read(fields)
        if asked_by is not None and prompt and not all(isinstance(each, str) for each in inputs):
            raise BadRequest(f"'{asked_by}' goes with texts, not with tokens.", param=asked_by)
        form = Form(
            packed=fields.choice("encoding_format", ("float", "base64"), "float") == "base64",
            dimensions=fields.integer("dimensions", 1, self.size),
            dense=fields.flag("return_dense", default=True),
        )
        sparse, colbert = self.read_head(fields, "sparse"), self.read_head(fields, "colbert")
        if not (form.dense or sparse or colbert):
            raise BadRequest("Nothing is asked for: 'return_dense' is false.", param="return_dense")
        truncate = fields.flag("truncate", default=self.truncate)
        fields.close()
        return Wanted(inputs, prompt, truncate, form, sparse, colbert)

    def read_head(self, fields: Fields, name: str) -> bool:
        asked = fields.flag(f"return_{name}")
        if asked and self.heads is None:
            raise UnsupportedParameter(f"return_{name}", "this model has no such head")
        return asked

    def rows(self, wanted: Wanted, inputs: Sequence[Input], places: Sequence[int]) -> list[Text]:
        """Rows of tokens with the model's own first and last tokens."""
        prompted = [wanted.prompt + each for each in inputs if isinstance(each, str)]
        read = iter(tokens_of(self.tokenizer, prompted, special=True))
        lines = [next(read) if isinstance(each, str) else self.framed(list(each)) for each in inputs]
        for place, ids in enumerate(lines):
            if len(ids) > self.longest and not wanted.truncate:
                raise ContextLengthExceeded(
                    f"Input {places.index(place)} has {len(ids)} tokens; this model reads {self.longest}.",
                    param="input",
                )
        cut = [self.cut(ids) for ids in lines]
        numbers = sum(map(len, cut)) * self.heads.width if self.heads and wanted.colbert else 0
        if numbers > MOST_NUMBERS:
            raise BadRequest(
                f"The vectors of all tokens would be {numbers} numbers; one answer may have {MOST_NUMBERS}.",
                param="return_colbert",
            )
        prompt = self.prompt_length(wanted.prompt)
        return [Text(ids, None, prompt, wanted.sparse, wanted.colbert) for ids in cut]

    def framed(self, ids: Ids) -> Ids:
        """Given tokens between the special ones, unless they have them already."""
        has_head = ids[: len(self.head)] == self.head
        has_tail = ids[len(ids) - len(self.tail) :] == self.tail
        return ids if has_head and has_tail else [*self.head, *ids, *self.tail]

    def cut(self, ids: Ids) -> Ids:
        """At most as many tokens as the model reads; the special ones at both ends stay."""
        over = len(ids) - self.longest
        if over <= 0:
            return ids
        if self.tokenizer.truncation_side == "left":
            return ids[: len(self.head)] + ids[len(self.head) + over :]
        end = len(ids) - len(self.tail)
        return ids[: end - over] + ids[end:]

    def prompt_length(self, prompt: str) -> int:
        """Tokens of the prompt with the special ones before it, where the model leaves them out of its mean."""
        if not prompt or not self.skips_prompt:
            return 0
        (ids,) = tokens_of(self.tokenizer, [prompt], special=True)
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)


def further(heads: Heads, hidden: Any, rows: Sequence[Text], vectors: Sequence[Vectors]) -> list[Vectors]:
    """The vectors of a batch with the other forms that some of its rows want."""
    ids = [row.ids for row in rows]
    weights = heads.weights(hidden, ids) if any(row.sparse for row in rows) else [None] * len(rows)
    several = heads.vectors(hidden, ids) if any(row.colbert for row in rows) else [None] * len(rows)
    return [
        Vectors(vector.dense, weight if row.sparse else None, many if row.colbert else None)
        for row, vector, weight, many in zip(rows, vectors, weights, several, strict=True)
    ]


def read_input(value: Any, vocabulary: int) -> list[Input]:
    """A text, texts, tokens, or lists of tokens."""
    given: Any = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not given:
        raise BadRequest("'input' must be a string or a non-empty array.", param="input")
    if all(is_whole(each) for each in given):
        given = [given]
    if len(given) > MOST_INPUTS:
        raise BadRequest(f"'input' may hold at most {MOST_INPUTS} entries.", param="input")
    texts = all(isinstance(each, str) for each in given)
    if not texts and not all(isinstance(each, list) and all(map(is_whole, each)) for each in given):
        raise wrong_type("input", "a string, strings, or arrays of tokens")
    if not all(given):
        raise BadRequest("'input' must not hold an empty text.", param="input")
    return given if texts else [checked(each, vocabulary) for each in given]


def checked(tokens: list[int], vocabulary: int) -> tuple[int, ...]:
    for token in tokens:
        if not 0 <= token < vocabulary:
            raise BadRequest(
                f"'input' holds the token {token}; this model has the tokens 0 to {vocabulary - 1}. {TOKENIZED}",
                param="input",
            )
    return tuple(tokens)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def special_frame(tokenizer: Any) -> tuple[Ids, Ids]:
    """The tokens that this tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next((at for at in range(len(full)) if full[at : at + len(bare)] == bare), 0)
    return list(full[:start]), list(full[start + len(bare) :])


if __name__ == "__main__":
    main(EmbedEngine, "workers.engines.embed")
