"""The hosts that models run on, and how fast models are there. Reads only."""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations
from api.auth import Access
from api.calls import json_response
from api.context import context_of
from api.fleet import node_object
from api.profiler import ANSWER, WINDOW_PARAMETER, profile, window_of
from api.routes import Routes

routes = Routes("Models")


@routes.route(
    "GET",
    "/nodes",
    access=Access.READONLY,
    summary="List nodes",
    responses={
        "200": operations.answer("Every host with its devices, their memory, and its replicas."),
        **operations.failures(401, 503),
    },
)
async def nodes(request: Request) -> ASGIApp:
    """Hosts whose agent gave a sign of life in the last seconds. Memory is in bytes; null where a device tells none."""
    queue = context_of(request).gateway.queue
    found, replicas = await asyncio.gather(queue.nodes(), queue.replicas())
    return json_response({"object": "list", "data": [node_object(each, replicas) for each in found]})


@routes.route(
    "GET",
    "/profiler",
    access=Access.READONLY,
    summary="How fast models are",
    parameters=[WINDOW_PARAMETER],
    responses={"200": ANSWER, **operations.failures(400, 401)},
)
async def profiler(request: Request) -> ASGIApp:
    """Of each model: how long it took to load, how many jobs ended in the window, how long they waited and ran, and how
    much work it does per second. What is not known is null, also while Redis or the database is away."""
    context = context_of(request)
    window = window_of(request.query_params.get("window"))
    return json_response({"object": "list", "window_seconds": window, "data": await profile(context, window)})
