"""Puts the application together: routes, error shapes, the boundary. Makes nothing that needs closing."""

from fastapi import FastAPI
from starlette.types import ASGIApp

import inferq
from api import errors as wire
from api.boundary import Boundary
from api.context import Context
from api.routers import artifacts, chat, embeddings, health, jobs, keys, models, pages
from api.routes import refuse_undeclared

ROUTERS = (chat, embeddings, jobs, artifacts, models, keys, health, pages)
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
    for module in ROUTERS:
        module.routes.install(app)
    refuse_undeclared(app.routes)
    return app


def create_app(context: Context) -> ASGIApp:
    """What the server runs."""
    return Boundary(create_api(context), context.telemetry, access_log=context.settings.api.access_log)
