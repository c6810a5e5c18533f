"""Vectors and order: `embeddings` and `rerank`. Sizes are in tokens, a guess."""

from collections.abc import Iterator
from typing import Any

from inferq import errors
from inferq.config import ModelSettings
from inferq.endpoints.endpoint import Body, Endpoint, Files
from inferq.endpoints.fields import ARRAY, BOOLEAN, INTEGER, OBJECT, STRING, Field, wrong_type
from inferq.endpoints.gateway import GATEWAY, MODEL
from inferq.endpoints.length import Prompt, most_tokens, plain, tokens_of
from inferq.endpoints.parts import files_in
from inferq.endpoints.text import PROMPT_SCHEMA, check_prompt, is_cut

_MOST_INPUTS = 2048


def _input(value: Any, path: str) -> None:
    if value == "":
        raise errors.InvalidRequest(f"Invalid '{path}': the text is empty.", param=path)
    check_prompt(value, path)
    if isinstance(value, list) and isinstance(value[0], str | list) and len(value) > _MOST_INPUTS:
        raise errors.InvalidRequest(f"Invalid '{path}': more than {_MOST_INPUTS} inputs.", param=path)


EMBEDDING_TABLE = {
    "model": MODEL,
    "input": Field(
        types=(STRING, ARRAY),
        required=True,
        doc="Texts or token ids to embed.",
        check=_input,
        schema=PROMPT_SCHEMA,
    ),
    "encoding_format": Field(
        types=(STRING,), choices=("float", "base64"), doc="Numbers, or base64 of little-endian 32-bit floats."
    ),
    "dimensions": Field(
        types=(INTEGER,), low=1, doc="Length of the vectors, for models that can shorten them."
    ),
    "user": Field(types=(STRING,), doc="A name for the end user; not used."),
    **GATEWAY,
}


def _documents(value: list[Any], path: str) -> None:
    if not value:
        raise errors.InvalidRequest(f"Invalid '{path}': the array is empty.", param=path)
    for index, item in enumerate(value):
        text = item.get("text") if isinstance(item, dict) else item
        if not isinstance(text, str):
            raise wrong_type(f"{path}[{index}]", (STRING, OBJECT), item)


RERANK_TABLE = {
    "model": MODEL,
    "query": Field(types=(STRING,), required=True, doc="What is looked for."),
    "documents": Field(
        types=(ARRAY,),
        required=True,
        doc="Texts, or objects with a `text`.",
        check=_documents,
        schema={"items": {"oneOf": [{"type": "string"}, {"type": "object"}]}},
    ),
    "top_n": Field(types=(INTEGER,), low=1, doc="How many of the best are given; all when left out."),
    "top_k": Field(types=(INTEGER,), low=1, doc="Another name of `top_n`."),
    "return_documents": Field(types=(BOOLEAN,), doc="Repeat each text in its result. Default true."),
    "max_tokens_per_doc": Field(types=(INTEGER,), low=1, doc="Cut each text to so many tokens."),
    **GATEWAY,
}


def _embedding_units(body: Body, _model: ModelSettings, _files: Files) -> float:
    return max(1.0, tokens_of(body["input"]))


def _rerank_units(body: Body, _model: ModelSettings, _files: Files) -> float:
    """Every document is read together with the query."""
    documents = body["documents"]
    return max(1.0, tokens_of(documents) + len(documents) * tokens_of(body["query"]))


def _admit_rerank(body: Body, model: ModelSettings, _files: Files) -> None:
    model.limits.check("documents", len(body["documents"]), "documents", "{value:.0f} documents were sent")


def _embedding_prompts(body: Body, model: ModelSettings) -> Iterator[Prompt]:
    if not is_cut(body) and not model.options.get("truncate"):
        yield from plain("input", body["input"])


def _rerank_prompts(body: Body, _model: ModelSettings) -> Iterator[Prompt]:
    """The query with each document. Engines cut documents unless they are told not to."""
    if body.get("truncate") is not False or body.get("max_tokens_per_doc") is not None:
        return
    query = body["query"]
    for place, item in enumerate(body["documents"]):
        text = item["text"] if isinstance(item, dict) else item
        yield Prompt(f"documents[{place}]", (query, text), most_tokens([query, text]))


def _pure(_body: Body) -> bool:
    return True


EMBEDDINGS = Endpoint(
    path="embeddings",
    takes=("embedding",),
    table=EMBEDDING_TABLE,
    units=_embedding_units,
    files=lambda body: files_in(body, "messages"),
    prompts=_embedding_prompts,
    cached=_pure,
)
RERANK = Endpoint(
    path="rerank",
    takes=("rerank",),
    table=RERANK_TABLE,
    units=_rerank_units,
    files=lambda body: files_in(body, "documents"),
    admit=_admit_rerank,
    prompts=_rerank_prompts,
    cached=_pure,
)
