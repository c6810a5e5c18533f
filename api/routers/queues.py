"""Queues: what waits and runs, and who may be served: pause, resume, drain."""

from difflib import get_close_matches
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations
from api.auth import Access, Caller
from api.body import read_object
from api.calls import json_response
from api.context import Context, caller_of, context_of
from api.fleet import pause_object, read_or_none, stopped
from api.routes import Routes
from inferq import errors
from inferq.config.tenants import FILES
from inferq.endpoints import fields
from inferq.endpoints.fields import STRING, Field
from inferq.lanes import Lane
from queues import overview
from queues.controls import TENANT_LIMIT, Kind, running_limits

routes = Routes("Queues")

_KIND = Field(
    types=(STRING,),
    required=True,
    choices=tuple(Kind),
    doc="`model`, `tenant` or `lane` to pause; `replica` or `node` to drain.",
)
_LANE = Field(types=(STRING,), choices=tuple(Lane), doc="A lane.")
_NAME = Field(types=(STRING,), required=True, doc="Which one.", schema={"minLength": 1, "maxLength": 256})
PAUSE = {
    "kind": _KIND,
    "name": _NAME,
    "reason": Field(types=(STRING,), doc="Shown to others.", schema={"maxLength": 500}),
}
_LONGEST = {"name": 256, "reason": 500}


@routes.route(
    "GET",
    "/queues",
    access=Access.READONLY,
    summary="What waits and runs",
    responses={
        "200": operations.answer("Every model's jobs by lane and tenant, and what is paused or drained."),
        **operations.failures(401, 403, 503),
    },
)
async def list_queues(request: Request) -> ASGIApp:
    """`device_seconds` is the work that waits, as it is estimated. The sums of a model are of all tenants; a user's key
    sees the numbers, pauses and limits of no other tenant than its own."""
    context, caller = context_of(request), caller_of(request)
    gateway = context.gateway
    found = await overview.read(gateway.queue.redis, gateway.queue.prefix, context.catalog.models)
    pauses = await stopped(context, caller)
    limits = {
        field: most
        for field, most in running_limits(context.settings).items()
        if not field.startswith(TENANT_LIMIT) or caller.sees(field.removeprefix(TENANT_LIMIT))
    }
    return json_response(
        {
            "object": "list",
            "data": [_queue_object(queue, pauses, caller) for queue in found],
            "pauses": pauses,
            "limits": limits,
        }
    )


@routes.route(
    "POST",
    "/queues/pauses",
    access=Access.ADMIN,
    summary="Pause or drain",
    requestBody=operations.body(
        fields.object_schema(PAUSE),
        model={"kind": "model", "name": "demo-chat", "reason": "new weights"},
        node={"kind": "node", "name": "gpu-2"},
    ),
    responses={
        "200": operations.answer("The pause. `in_force`: false while Redis is away."),
        **operations.failures(400, 401, 403, 404, 503),
    },
)
async def pause(request: Request) -> ASGIApp:
    """Nothing of it is claimed any more from now on; what waits keeps its place, what runs goes on. It stays so, also
    when everything is restarted, until it is resumed."""
    wanted = await read_object(request)
    fields.refuse_unknown(wanted, PAUSE)
    fields.verify(wanted, PAUSE)
    for name, most in _LONGEST.items():
        if len(wanted.get(name) or "") > most:
            raise errors.InvalidRequest(f"Invalid '{name}': longer than {most} characters.", param=name)
    kind, name = Kind(wanted["kind"]), await _known(request, Kind(wanted["kind"]), wanted["name"])
    change = await context_of(request).gateway.controls.pause(kind, name, wanted.get("reason") or "")
    assert change.pause
    return json_response({**pause_object(change.pause), "in_force": change.queued})


@routes.route(
    "DELETE",
    "/queues/pauses/{kind}/{name:path}",
    access=Access.ADMIN,
    summary="Resume",
    parameters=[
        operations.parameter("path", "kind", "What kind of thing.", {"type": "string", "enum": list(Kind)}),
        operations.parameter("path", "name", "Which one."),
    ],
    responses={
        "200": operations.answer(
            "What is resumed. `was_stopped`: whether it was stopped; `in_force`: false while Redis is away."
        ),
        **operations.failures(400, 401, 403, 404, 503),
    },
)
async def resume(request: Request) -> ASGIApp:
    """Claims begin again; nothing happens when it was not stopped. A tenant gets no credit for the time it was away."""
    kind, name = request.path_params["kind"], request.path_params["name"]
    fields.verify({"kind": kind}, {"kind": _KIND})
    controls = context_of(request).gateway.controls
    stopped = {(pause.kind, pause.name) for pause in await controls.stopped()}
    if (kind, name) not in stopped:
        # What is stopped may be gone by now; any other name has to be right.
        name = await _known(request, Kind(kind), name)
    change = await controls.resume(Kind(kind), name)
    was_stopped = {"was_stopped": (kind, name) in stopped}
    return json_response(
        {"object": "pause", "kind": kind, "name": name, **was_stopped, "in_force": change.queued}
    )


async def _known(request: Request, kind: Kind, name: str) -> str:
    """The name, an alias resolved. A misspelt one would look like a pause and be none. Raises NotFound."""
    context = context_of(request)
    if kind is Kind.MODEL:
        return context.catalog.resolve(name)[0]
    if kind is Kind.LANE:
        fields.verify({"name": name}, {"name": _LANE})
    if kind is Kind.TENANT and name not in (known := await _tenants(context)):
        near = get_close_matches(name, known, n=3)
        hint = f" Did you mean {' or '.join(repr(each) for each in near)}?" if near else ""
        raise errors.NotFound(f"There is no tenant {name!r}.{hint}", param="name")
    if kind in (Kind.REPLICA, Kind.NODE):
        infos = await (
            context.gateway.queue.replicas() if kind is Kind.REPLICA else context.gateway.queue.nodes()
        )
        if name not in {info.name for info in infos}:
            there = ", ".join(sorted(info.name for info in infos)) or "none"
            raise errors.NotFound(f"There is no {kind} {name!r}; there are: {there}.", param="name")
    return name


async def _tenants(context: Context) -> set[str]:
    """Those with bounds, a key (also a revoked one, which may have left jobs), jobs that wait or run, or files."""
    queue = context.gateway.queue
    keys = await context.storage.keys.list()
    queued = await read_or_none(overview.read(queue.redis, queue.prefix, context.catalog.models)) or []
    return {
        FILES,
        *(name for name in context.settings.tenants if name != "*"),
        *(key.tenant for key in keys),
        *(tenant.name for each in queued for tenant in each.tenants),
    }


def _queue_object(queue: overview.ModelQueue, pauses: list[dict[str, Any]], caller: Caller) -> dict[str, Any]:
    names = {(pause["kind"], pause["name"]) for pause in pauses}
    return {
        "model": queue.model,
        "object": "queue",
        "paused": ("model", queue.model) in names,
        "waiting": queue.waiting,
        "running": queue.running,
        "bytes": queue.bytes,
        "device_seconds": queue.device_seconds,
        "tenants": [
            {
                "name": each.name,
                "paused": ("tenant", each.name) in names,
                "waiting": each.waiting,
                "running": each.running,
                "device_seconds": each.device_seconds,
            }
            for each in queue.tenants
            if caller.sees(each.name)
        ],
    }
