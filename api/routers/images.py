"""Pictures: `images/generations` and `images/edits`."""

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations
from api.auth import Access
from api.calls import call
from api.routes import Routes
from inferq.endpoints import fields
from inferq.endpoints.images import EDIT_TABLE, GENERATION_TABLE

routes = Routes("Images")

_ANSWERS = operations.called(
    "`data`: of each picture its `url`, a link that expires, or `b64_json`; with `stream` server-sent events.",
    "application/json",
    operations.EVENTS,
)


@routes.route(
    "POST",
    "/images/generations",
    access=Access.USER,
    summary="Paint pictures",
    requestBody=operations.body(
        fields.object_schema(GENERATION_TABLE, open_ended=True),
        text={"model": "demo-image", "prompt": "a red house", "size": "64x64", "steps": 8, "seed": 42},
        picture={
            "model": "demo-image",
            "prompt": "as an oil painting",
            "image_url": "https://example.com/house.png",
            "denoise_strength": 0.7,
        },
    ),
    parameters=operations.CALL_HEADERS,
    responses=_ANSWERS,
)
async def generations(request: Request) -> ASGIApp:
    """From a text; from a picture with `image_url`; guided by ControlNets with `controlnet_units`. Requests that fit
    together run as one batch."""
    return await call(request, "images/generations")


@routes.route(
    "POST",
    "/images/edits",
    access=Access.USER,
    summary="Repaint parts of a picture",
    requestBody=operations.form_or_json(fields.object_schema(EDIT_TABLE, open_ended=True)),
    parameters=operations.CALL_HEADERS,
    responses=_ANSWERS,
)
async def edits(request: Request) -> ASGIApp:
    """What the mask leaves out stays as it is. A form, as OpenAI's clients send it, or JSON."""
    return await call(request, "images/edits")
