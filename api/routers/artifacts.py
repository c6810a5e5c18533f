"""Artifacts: bytes too big or too binary for a record."""

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations
from api.auth import Access
from api.downloads import artifact_response
from api.links import opened_by_link
from api.routes import Routes

routes = Routes("Artifacts")


@routes.route(
    "GET",
    "/artifacts/{sha256}",
    access=Access.READONLY,
    unless=opened_by_link,
    summary="Download an artifact",
    parameters=[
        operations.parameter("path", "sha256", "Name of the artifact, as a job's `artifact` tells it."),
        operations.parameter("header", "Range", "`bytes=a-b`: only this part."),
    ],
    responses={
        "200": operations.answer("The bytes.", content={"*/*": {"schema": {}}}),
        "206": operations.answer("The part that was asked for.", content={"*/*": {"schema": {}}}),
        **operations.failures(401, 404, 416, 503),
    },
)
async def get_artifact(request: Request) -> ASGIApp:
    """Any key may fetch an artifact whose name it knows; the name is the digest of the content. A signed link, as
    answers with pictures have it, needs no key until it expires."""
    return await artifact_response(request, request.path_params["sha256"])
