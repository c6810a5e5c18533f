"""Vectors: `embeddings`."""

from starlette.requests import Request
from starlette.types import ASGIApp

from api import fields, operations
from api.auth import Access
from api.calls import call
from api.routes import Routes
from api.schemas.embeddings import EMBEDDING

routes = Routes("Embeddings")


@routes.route(
    "POST",
    "/embeddings",
    access=Access.USER,
    summary="Embed texts",
    requestBody=operations.body(
        fields.object_schema(EMBEDDING, open_ended=True),
        one={"model": "demo-embed", "input": "a sentence"},
        many={"model": "demo-embed", "input": ["one", "two"], "encoding_format": "base64"},
    ),
    parameters=operations.CALL_HEADERS,
    responses={
        "200": operations.answer("The vectors, in the order of the inputs."),
        "202": operations.answer("With `Prefer: respond-async`: the job.", operations.ref("Job")),
        **operations.failures(*operations.CALL_ERRORS),
    },
)
async def embeddings(request: Request) -> ASGIApp:
    """OpenAI's embeddings endpoint. OpenAI's own client asks for `base64` unless it is told otherwise."""
    return await call(request, "embeddings")
