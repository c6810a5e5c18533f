"""Models and the replicas that run them. Reads only."""

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations
from api.auth import Access
from api.calls import json_response
from api.context import context_of
from api.fleet import model_object, read_fleet, replica_object
from api.routes import Routes

routes = Routes("Models")


@routes.route(
    "GET",
    "/models",
    access=Access.READONLY,
    summary="List models",
    responses={"200": operations.answer("All configured models."), **operations.failures(401, 503)},
)
async def list_models(request: Request) -> ASGIApp:
    """OpenAI's list, each model with `info`: type, engine, state, aliases, and how many jobs wait per lane."""
    context = context_of(request)
    fleet = await read_fleet(context)
    data = [model_object(context, fleet, name, model) for name, model in context.catalog.models.items()]
    return json_response({"object": "list", "data": data})


@routes.route(
    "GET",
    "/models/{model:path}",
    access=Access.READONLY,
    summary="Look at a model",
    parameters=[operations.parameter("path", "model", "Name or alias.")],
    responses={"200": operations.answer("The model."), **operations.failures(401, 404, 503)},
)
async def get_model(request: Request) -> ASGIApp:
    """By its name or an alias."""
    context = context_of(request)
    name, model = context.catalog.resolve(request.path_params["model"])
    return json_response(model_object(context, await read_fleet(context), name, model))


@routes.route(
    "GET",
    "/running_models",
    access=Access.READONLY,
    summary="List replicas",
    responses={"200": operations.answer("Every resident copy of a model."), **operations.failures(401, 503)},
)
async def running_models(request: Request) -> ASGIApp:
    """Where each copy runs, its state, its slots and how many are busy."""
    replicas = await context_of(request).gateway.queue.replicas()
    return json_response({"object": "list", "data": [replica_object(replica) for replica in replicas]})
