"""The rerank engine: `/v1/rerank` on sentence-transformers' cross-encoders.

Options: those of `padded.Batching`; `max_documents` (per request, default 1000) and `max_length` (tokens of a
query and a document together; default and upper limit: the model's).

A query is tokenized once, its documents in one call, outside the model's thread. Scores are the model's own: the
logit through the activation that the library would use.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import CrossEncoder

from workers.engines.asgi import Call, EngineApp, Handler, Reply
from workers.engines.base import Engine, main
from workers.engines.failures import BadRequest, ContextLengthExceeded, EngineFault
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
)

PER_UNIT = 100  # Cohere counts a query with up to this many documents as one search unit


@dataclass(frozen=True)
class Wanted:
    """One rerank request."""

    query: str
    documents: list[str]
    shown: list[Any]
    top: int
    truncate: bool
    per_document: int | None
    raw: bool


class RerankEngine(Engine):
    """One cross-encoder with a single score."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        self.batching = Batching.take(options, launch.device)
        self.most = options.take("max_documents", 1000)
        self.longest = options.take("max_length", 0)
        options.close()
        if self.most < 1 or self.longest < 0:
            raise ValueError("'max_documents' must be at least 1, and 'max_length' not negative")

    def load(self) -> None:
        model: Any = CrossEncoder(self.launch.model, device=self.launch.device, **self.batching.prepare())
        self.model = model.eval()
        self.tokenizer = fast_tokenizer(model)
        if model.num_labels != 1:
            raise ValueError(f"a reranker has one score; this model has {model.num_labels} labels")
        longest = context_of(model)
        self.longest = min(self.longest or longest, longest)
        self.prompt = model.prompts.get(model.default_prompt_name or "", "")
        self.frame = PairFrame.of(model)
        self.runs: PaddedRuns[Row, float] = PaddedRuns(model, self.batching, self.forward)
        self.runs.start(self.frame.row(*tokens_of(self.tokenizer, ["a", "b"], special=False)))

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/rerank"): self.rerank}

    def unload(self) -> None:
        self.runs.stop()

    def details(self) -> Mapping[str, Any]:
        return {"context": self.longest, "max_documents": self.most, **self.runs.counts()}

    def forward(self, features: dict[str, Any], rows: Sequence[Row]) -> Sequence[float]:
        logits: list[float] = self.model(features)["scores"].float().flatten().tolist()
        return logits

    async def rerank(self, call: Call) -> Reply:
        wanted = self.read(Fields(call.json()))
        texts, places = distinct(wanted.documents)
        rows = await asyncio.to_thread(self.rows, wanted, texts, places)
        total = len(rows)
        logits = await self.runs.submit(rows, lambda left: call.run.report(total - left, total))
        used = sum(len(rows[place]) for place in places)
        return Reply.json(self.answer(wanted, [logits[place] for place in places], used))

    def read(self, fields: Fields) -> Wanted:
        self.app.check_model(fields)
        query = fields.text("query")
        if not query:
            raise BadRequest("'query' must be a non-empty string.", param="query")
        given = fields.listing("documents")
        if not given:
            raise BadRequest("'documents' must be a non-empty array.", param="documents")
        if len(given) > self.most:
            raise BadRequest(
                f"'documents' may hold at most {self.most} entries; there are {len(given)}.",
                param="documents",
            )
        documents = [text_of(document, place) for place, document in enumerate(given)]
        wanted = Wanted(
            query=query,
            documents=documents,
            shown=given if fields.flag("return_documents", default=True) else [],
            top=read_top(fields, len(given)),
            truncate=fields.flag("truncate", default=True),
            per_document=fields.integer("max_tokens_per_doc", 1),
            raw=fields.flag("raw_scores"),
        )
        fields.close()
        return wanted

    def rows(self, wanted: Wanted, texts: Sequence[str], places: Sequence[int]) -> list[Row]:
        """One row per distinct document. Raises ContextLengthExceeded where something may not be cut."""
        query, *documents = tokens_of(self.tokenizer, [self.prompt + wanted.query, *texts], special=False)
        room = self.longest - len(self.frame)
        if len(query) > room:
            raise ContextLengthExceeded(
                f"The query has {len(query)} tokens; this model reads {room} of query and document.",
                param="query",
            )
        if wanted.per_document is not None:
            documents = [document[: wanted.per_document] for document in documents]
        for place, document in enumerate(documents):
            if not wanted.truncate and len(query) + len(document) > room:
                raise ContextLengthExceeded(
                    f"Document {places.index(place)} has {len(document)} tokens and the query {len(query)};"
                    f" this model reads {room} together.",
                    param="documents",
                )
        return [self.frame.row(*cut(query, document, room)) for document in documents]

    def answer(self, wanted: Wanted, logits: Sequence[float], used: int) -> dict[str, Any]:
        if not all(map(math.isfinite, logits)):
            raise EngineFault("The model answered with a score that is not a number.")
        scores = logits if wanted.raw else self.activated(logits)
        order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
        results = [
            {"index": place, "relevance_score": scores[place]}
            | ({"document": wanted.shown[place]} if wanted.shown else {})
            for place in order[: wanted.top]
        ]
        return {
            "id": f"rerank-{uuid.uuid4().hex}",
            "model": self.app.served_name,
            "results": results,
            "usage": {"prompt_tokens": used, "total_tokens": used},
            "meta": {"billed_units": {"search_units": math.ceil(len(scores) / PER_UNIT)}},
        }

    def activated(self, logits: Sequence[float]) -> list[float]:
        """Scores as `CrossEncoder.predict` gives them: a sigmoid, unless the model names another function."""
        with torch.inference_mode():
            scores: list[float] = self.model.activation_fn(torch.tensor(logits)[:, None]).flatten().tolist()
        return scores


@dataclass(frozen=True)
class PairFrame:
    """What a tokenizer puts before, between and after two texts, and whether it numbers them with types."""

    head: Ids
    middle: Ids
    tail: Ids
    types: tuple[int, int, int, int, int] | None

    @classmethod
    def of(cls, model: Any) -> PairFrame:
        """Found by looking. Raises ValueError where the library builds pairs in another way."""
        tokenizer = model.tokenizer
        one, other = "a", "b"
        left, right = tokenizer([one, other], add_special_tokens=False)["input_ids"]
        features = model.preprocess([(one, other)])
        whole = features["input_ids"][0].tolist()
        start = find(whole, left, 0)
        between = find(whole, right, start + len(left)) if start >= 0 else -1
        if between < 0 or not left or not right:
            raise ValueError("this engine does not know how the model's tokenizer joins two texts")
        end = between + len(right)
        types = None
        if "token_type_ids" in features:
            seen = features["token_type_ids"][0].tolist()
            at = (0, start, start + len(left), between, min(end, len(seen) - 1))
            types = tuple(seen[place] for place in at)
        return cls(whole[:start], whole[start + len(left) : between], whole[end:], types)

    def __len__(self) -> int:
        return len(self.head) + len(self.middle) + len(self.tail)

    def row(self, left: Ids, right: Ids) -> Row:
        parts = (self.head, left, self.middle, right, self.tail)
        ids = [token for part in parts for token in part]
        if self.types is None:
            return Row(ids)
        return Row(ids, [kind for kind, part in zip(self.types, parts, strict=True) for _ in part])


def find(whole: Ids, part: Ids, start: int) -> int:
    places = range(start, len(whole) - len(part) + 1)
    return next((place for place in places if whole[place : place + len(part)] == part), -1)


def cut(left: Ids, right: Ids, room: int) -> tuple[Ids, Ids]:
    """Both within `room` tokens: the longer one is cut, below half of the room both are.

    The same as the tokenizers library's strategy `longest_first`, which cross-encoders are used with.
    """
    if len(left) + len(right) <= room:
        return left, right
    kept = min(len(left), len(right), room // 2)
    return (
        (left[: room - kept], right[:kept]) if len(left) > len(right) else (left[:kept], right[: room - kept])
    )


def text_of(document: Any, place: int) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise wrong_type(f"documents[{place}]", "a string, or an object with a string 'text'")
    if isinstance(document, dict) and len(document) > 1:
        raise BadRequest(
            f"'documents[{place}]' has fields besides 'text', which this engine does not rank by.",
            param=f"documents[{place}]",
        )
    return text


def read_top(fields: Fields, count: int) -> int:
    """How many results: `top_n` or its synonym `top_k`; all when neither is given."""
    top_n, top_k = fields.integer("top_n", 1), fields.integer("top_k", 1)
    if top_n is not None and top_k is not None and top_n != top_k:
        raise BadRequest(f"'top_n' is {top_n} and 'top_k' is {top_k}; give one of them.", param="top_k")
    return min(top_n or top_k or count, count)


if __name__ == "__main__":
    main(RerankEngine, "workers.engines.rerank")
