"""Vectors and order: `embeddings` and `rerank`."""

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations
from api.auth import Access
from api.calls import call
from api.routes import Routes
from inferq.endpoints import fields
from inferq.endpoints.vectors import EMBEDDING_TABLE, RERANK_TABLE

routes = Routes("Embeddings")


@routes.route(
    "POST",
    "/embeddings",
    access=Access.USER,
    summary="Embed texts",
    requestBody=operations.body(
        fields.object_schema(EMBEDDING_TABLE, open_ended=True),
        one={"model": "demo-embed", "input": "a sentence"},
        many={"model": "demo-embed", "input": ["one", "two"], "encoding_format": "base64"},
    ),
    parameters=operations.CALL_HEADERS,
    responses=operations.called("The vectors, in the order of the inputs."),
)
async def embeddings(request: Request) -> ASGIApp:
    """OpenAI's embeddings endpoint. OpenAI's own client asks for `base64` unless it is told otherwise."""
    return await call(request, "embeddings")


_RERANK: dict[str, Any] = {
    "access": Access.USER,
    "summary": "Sort documents by a query",
    "requestBody": operations.body(
        fields.object_schema(RERANK_TABLE, open_ended=True),
        one={
            "model": "demo-rerank",
            "query": "weather",
            "documents": ["It rains.", "A cat sleeps."],
            "top_n": 1,
        },
    ),
    "parameters": operations.CALL_HEADERS,
    "responses": operations.called("`results`, the best first: `index`, `relevance_score`, `document`."),
}


@routes.route("POST", "/rerank", **_RERANK)
async def rerank(request: Request) -> ASGIApp:
    """How well each document answers the query, from 0 to 1, in the shape that Jina and Cohere use. Also served as
    `/rerank` and `/v2/rerank`."""
    return await call(request, "rerank")


elsewhere = Routes("Embeddings", versioned=False, hidden=True)
"""Where clients of other makers look for it."""


@elsewhere.route("POST", "/rerank", **_RERANK)
async def rerank_bare(request: Request) -> ASGIApp:
    return await call(request, "rerank")


@elsewhere.route("POST", "/v2/rerank", **_RERANK)
async def rerank_v2(request: Request) -> ASGIApp:
    return await call(request, "rerank")


@elsewhere.route("POST", "/openai/v2/rerank", **_RERANK)
async def rerank_openai_v2(request: Request) -> ASGIApp:
    return await call(request, "rerank")
