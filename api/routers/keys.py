"""API keys: make, list, revoke. A key is shown once; only its digest is stored."""

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations
from api.auth import Access
from api.body import read_object
from api.calls import json_response
from api.context import context_of
from api.routes import Routes
from inferq.endpoints import fields
from inferq.endpoints.fields import NUMBER, STRING, Field
from inferq.lanes import Lane
from storage.keys import ApiKey, Role

routes = Routes("Keys")

KEY = {
    "name": Field(types=(STRING,), required=True, doc="A name to tell keys apart.", schema={"minLength": 1}),
    "role": Field(
        types=(STRING,),
        required=True,
        choices=tuple(Role),
        doc="`readonly` looks, `user` submits and sees its tenant's jobs, `admin` may do all.",
    ),
    "tenant": Field(types=(STRING,), doc="Whose budget its jobs draw on; by default the key's own name."),
    "lane": Field(
        types=(STRING,), choices=tuple(Lane), doc="The highest lane that its jobs may use; by default `high`."
    ),
    "weight": Field(types=(NUMBER,), low=0.001, high=1000, doc="Share of device time against other tenants."),
}


@routes.route(
    "POST",
    "/keys",
    access=Access.ADMIN,
    summary="Make a key",
    requestBody=operations.body(
        fields.object_schema(KEY),
        user={"name": "alice", "role": "user"},
        dashboard={"name": "wall", "role": "readonly"},
    ),
    responses={
        "200": operations.answer("The key; `key` is shown this once."),
        **operations.failures(400, 401, 403, 409, 503),
    },
)
async def create_key(request: Request) -> ASGIApp:
    """The text of the key cannot be had again."""
    wanted = await read_object(request)
    fields.refuse_unknown(wanted, KEY)
    fields.verify(wanted, KEY)
    weight = wanted.get("weight")
    key, text = await context_of(request).storage.keys.create(
        wanted["name"],
        Role(wanted["role"]),
        wanted.get("tenant"),
        1.0 if weight is None else float(weight),
        Lane(wanted.get("lane") or Lane.HIGH),
    )
    return json_response({**key_object(key), "key": text})


@routes.route(
    "GET",
    "/keys",
    access=Access.ADMIN,
    summary="List keys",
    responses={
        "200": operations.answer("All keys, without their texts."),
        **operations.failures(401, 403, 503),
    },
)
async def list_keys(request: Request) -> ASGIApp:
    """Revoked ones too, with the time they were revoked."""
    keys = await context_of(request).storage.keys.list()
    return json_response({"object": "list", "data": [key_object(key) for key in keys]})


@routes.route(
    "DELETE",
    "/keys/{key}",
    access=Access.ADMIN,
    summary="Revoke a key",
    parameters=[operations.parameter("path", "key", "Id or name.")],
    responses={"200": operations.answer("The key."), **operations.failures(401, 403, 404, 503)},
)
async def revoke_key(request: Request) -> ASGIApp:
    """Ends it at once in this process, within ten seconds in others. Its jobs go on."""
    context = context_of(request)
    key = await context.storage.keys.revoke(request.path_params["key"])
    context.keys.forget()
    return json_response(key_object(key))


def key_object(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "role": key.role,
        "tenant": key.tenant,
        "weight": key.weight,
        "lane": key.lane,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
