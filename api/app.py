"""Puts the application together: routes, error shapes, the boundary. Makes nothing that needs closing."""

from fastapi import FastAPI
from starlette.types import ASGIApp

import inferq
from api import errors as wire
from api.boundary import Boundary
from api.context import Context
from api.proxy import ProxyMode
from api.routers import (
    artifacts,
    audio,
    dead,
    groups,
    health,
    images,
    jobs,
    keys,
    models,
    nodes,
    pages,
    queues,
    schedules,
    text,
    vectors,
    video,
    webhooks,
)
from api.routes import refuse_undeclared

ROUTERS = (
    *(text.routes, vectors.routes, vectors.elsewhere, images.routes, audio.routes, video.routes),
    *(jobs.routes, dead.routes, groups.routes, schedules.routes, artifacts.routes, models.routes),
    *(nodes.routes, queues.routes, keys.routes, webhooks.routes),
    *(health.routes, pages.routes),
)
"""In the order in which paths are matched: the busy ones first."""


def create_api(context: Context) -> FastAPI:
    """The routes without the boundary; its documentation is served by `api.routers.pages`."""
    app = FastAPI(
        title="inferq",
        version=inferq.__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    wire.install(app)
    for routes in ROUTERS:
        routes.install(app)
    refuse_undeclared(app.routes)
    return app


def create_app(context: Context) -> ASGIApp:
    """What the server runs."""
    return Boundary(
        ProxyMode(create_api(context)), context.telemetry, access_log=context.settings.api.access_log
    )
