"""Pages for people: the landing page, and the interactive API documentation, which works without the internet.

Swagger UI's files come from the installed wheel `fastapi-offline`; only the three that are needed are served.
"""

import importlib.util
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.types import ASGIApp

from api import landing, openapi
from api.auth import Access
from api.context import context_of, text_header
from api.fleet import read_fleet, read_parts
from api.routes import Routes
from inferq import errors

routes = Routes("Pages", versioned=False, hidden=True)

_HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@routes.route("GET", "/", access=Access.PUBLIC, summary="Landing page")
async def landing_page(request: Request) -> ASGIApp:
    context = context_of(request)
    fleet, parts = await read_fleet(context), await read_parts(context)
    return HTMLResponse(landing.page(context, fleet, parts, _base(request)), headers=landing.HEADERS)


@routes.route("GET", "/docs", access=Access.PUBLIC, summary="API documentation")
async def docs(_request: Request) -> ASGIApp:
    return HTMLResponse(_page("docs.html"), headers={"Content-Security-Policy": _DOCS_POLICY})


@routes.route("GET", "/docs/{asset}", access=Access.PUBLIC, summary="Parts of the API documentation")
async def docs_asset(request: Request) -> ASGIApp:
    name = request.path_params["asset"]
    if name == "start.js":
        return Response(_page(name), media_type="text/javascript")
    folder = _swagger_folder()
    if folder is None or name not in _ASSETS:
        raise errors.NotFound(f"There is no {name} here.")
    return FileResponse(folder / name, media_type=_ASSETS[name], headers={"Cache-Control": "max-age=86400"})


@routes.route("GET", "/openapi.json", access=Access.PUBLIC, summary="OpenAPI document")
async def openapi_document(request: Request) -> ASGIApp:
    state = request.app.state
    if not hasattr(state, "openapi_document"):
        state.openapi_document = openapi.document(request.app)
    return Response(state.openapi_document, media_type="application/json")


@cache
def _page(name: str) -> str:
    return (files("api") / "pages" / name).read_text("utf-8")


@cache
def _swagger_folder() -> Path | None:
    """Where the wheel keeps its files; found without importing it."""
    spec = importlib.util.find_spec("fastapi_offline")
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / "static" if places else None


def _base(request: Request) -> str:
    """How the caller reached us, for lines to copy. Only shown, never trusted; odd hosts are not repeated."""
    host = text_header(request.scope, b"host") or ""
    if not _HOST.fullmatch(host):
        settings = context_of(request).settings.api
        host = f"{settings.host}:{settings.port}"
    return f"{request.scope['scheme']}://{host}"
