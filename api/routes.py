"""How a route is declared: path, handler, the access it needs, and its documentation, in one place.

Handlers take the request and return an ASGI response. FastAPI's dependency solving and body validation are left out on
purpose: they cost more than the rest of a call, and bodies are checked by the tables in `inferq.endpoints`. The access
a route needs is a required argument, and start-up refuses a route that came in any other way.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.auth import Access, presented_key
from api.context import context_of, headers_of
from inferq import errors

Handler = Callable[[Request], Awaitable[ASGIApp]]

PREFIXES = ("/v1", "/openai/v1")
"""Every API route is served under each of these; the first is the one in the documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    method: str
    path: str
    endpoint: Handler
    access: Access
    unless: Callable[[Request], bool] | None
    summary: str
    operation: dict[str, Any]


@dataclass(slots=True)
class Routes:
    """The routes of one router module. `tag` groups them in the documentation."""

    tag: str
    versioned: bool = True
    hidden: bool = False
    declared: list[Declared] = field(default_factory=list)

    def route(
        self,
        method: str,
        path: str,
        *,
        access: Access,
        summary: str,
        unless: Callable[[Request], bool] | None = None,
        **operation: Any,
    ) -> Callable[[Handler], Handler]:
        """Declare a handler. A request for which `unless` is true needs no key. `operation` is merged into its
        OpenAPI operation (requestBody, parameters, responses).
        """

        def declare(endpoint: Handler) -> Handler:
            entry = Declared(
                method=method,
                path=path,
                endpoint=endpoint,
                access=access,
                unless=unless,
                summary=summary,
                operation=operation,
            )
            self.declared.append(entry)
            return endpoint

        return declare

    def install(self, app: FastAPI) -> None:
        for prefix in PREFIXES if self.versioned else ("",):
            for entry in self.declared:
                shown = not self.hidden and prefix in ("", PREFIXES[0])
                app.router.routes.append(SecuredRoute(entry, tag=self.tag, prefix=prefix, shown=shown))


class SecuredRoute(APIRoute):
    """A route that knows the access it needs and asks for it before its handler sees the request."""

    def __init__(self, declared: Declared, *, tag: str, prefix: str, shown: bool):
        self.access = declared.access
        self.unless = declared.unless
        super().__init__(
            prefix + declared.path,
            declared.endpoint,
            methods=[declared.method],
            tags=[tag],
            summary=declared.summary,
            description=(declared.endpoint.__doc__ or "").strip(),
            include_in_schema=shown,
            openapi_extra=declared.operation,
            response_model=None,
            response_class=Response,
        )

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint, access, unless = cast("Handler", self.endpoint), self.access, self.unless

        async def handle(request: Request) -> Response:
            if access is not Access.PUBLIC and not (unless and unless(request)):
                await admit(request, access)
            return cast("Response", await endpoint(request))

        return handle


async def admit(request: Request, needed: Access) -> None:
    """Put the caller into the request's scope, or refuse. Raises Unauthenticated, Forbidden, StoreUnavailable."""
    context = context_of(request)
    key = presented_key(headers_of(request.scope))
    if key is None:
        context.telemetry.auth_failed("missing")
        raise errors.Unauthenticated("No API key was sent. Send it as `Authorization: Bearer iq-...`.")
    caller = await context.keys.caller(key)
    if caller is None:
        context.telemetry.auth_failed("unknown")
        raise errors.Unauthenticated("This API key is not known, or it was revoked.")
    if caller.access < needed:
        context.telemetry.auth_failed("role")
        raise errors.Forbidden(
            f"This needs the role {needed.name.lower()}; the key {caller.name!r} has {caller.access.name.lower()}."
        )
    request.scope["caller"] = caller


def refuse_undeclared(routes: Sequence[object]) -> None:
    """Raise ConfigError when a route exists that did not say what access it needs."""
    for route in routes:
        if not isinstance(route, SecuredRoute):
            raise errors.ConfigError(
                f"route {getattr(route, 'path', route)!r} does not declare the access it needs"
            )
