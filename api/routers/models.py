"""Models: those that are configured, those that lie here and are not, and bringing more of them here."""

from functools import partial

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations, submission
from api.auth import Access
from api.calls import accept, json_response
from api.context import context_of
from api.fleet import model_object, read_fleet, replica_object
from api.local_models import local_object
from api.reading import read_request
from api.routes import Routes
from inferq import errors
from inferq.endpoints import fields
from inferq.endpoints.catalogue import PULL, TABLE

routes = Routes("Models")


@routes.route(
    "GET",
    "/models",
    access=Access.READONLY,
    summary="List models",
    parameters=[
        operations.parameter(
            "query",
            "local",
            "`true` also lists what lies under `models/` and is not configured, with the state `not_configured` and "
            "the configuration that would add it.",
            {"type": "boolean"},
        )
    ],
    responses={"200": operations.answer("All configured models."), **operations.failures(400, 401, 503)},
)
async def list_models(request: Request) -> ASGIApp:
    """OpenAI's list, each model with `info`: type, engine, state, endpoints, limits, what was measured when it was last
    loaded, what its engine says of it, and how many jobs wait per lane."""
    context = context_of(request)
    local = _flag(request, "local")
    fleet = await read_fleet(context)
    data = [model_object(context, fleet, name, model) for name, model in context.catalog.models.items()]
    if local:
        found = await context.local_models.list(context.settings)
        data += [local_object(context, each, accelerated=fleet.has_accelerator) for each in found]
    return json_response({"object": "list", "data": data})


@routes.route(
    "POST",
    "/models/pull",
    access=Access.ADMIN,
    summary="Bring a model here",
    parameters=[operations.IDEMPOTENCY_KEY],
    requestBody=operations.body(
        fields.object_schema(TABLE),
        hub={"source": "org/name", "exclude": ["*.bin"]},
        file={"source": "https://example.com/style.safetensors", "name": "style"},
    ),
    responses={
        "200": operations.answer("With `Prefer: wait=N`, when it was done in time.", operations.ref("Job")),
        "202": operations.answer("The job; `Location` says where to ask.", operations.ref("Job")),
        **operations.failures(400, 401, 403, 413, 429, 503),
    },
)
async def pull_model(request: Request) -> ASGIApp:
    """A long job: its progress is the share of bytes that are there. What was cut off goes on where it was, every file
    is checked, and `models/NAME` appears when nothing is missing. The same model again is left alone."""
    body = await read_request(request, PULL)
    fields.refuse_unknown(body, TABLE)
    return await accept(request, partial(submission.durable, request, PULL, body))


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
    """A list by itself, so that its length is the number of copies: where each runs, its state, its slots and how many
    are busy."""
    replicas = await context_of(request).gateway.queue.replicas()
    return json_response([replica_object(replica) for replica in replicas])


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise errors.InvalidRequest(f"Invalid value for '{name}': {text[:50]!r}; true or false.", param=name)
    return text in ("true", "1")
