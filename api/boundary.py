"""The outermost layer of the application: a request id on every answer, the numbers of every request, one log line.

Pure ASGI, so streams pass through unbuffered. It must not read bodies or decide anything.
"""

import asyncio
import logging
import os
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.context import headers_of
from api.errors import CALLER_LEFT, event_of, failure_of, respond
from api.sse import is_events, part
from api.telemetry import Telemetry
from inferq import errors

log = logging.getLogger("api")
access = logging.getLogger("api.access")

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
UNMATCHED = "unmatched"
"""The handler that metrics name for paths that are no route; the paths themselves are unbounded."""


class Boundary:
    def __init__(self, app: ASGIApp, telemetry: Telemetry, *, access_log: bool):
        self._app = app
        self._telemetry = telemetry
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(headers_of(scope))
        started = time.perf_counter()
        status, events = CALLER_LEFT, False
        told: list[tuple[bytes, bytes]] = []
        # A list, so that it stays one through every copy of the scope.
        scope["told"] = told

        async def tagged(message: Message) -> None:
            nonlocal status, events
            if message["type"] == "http.response.start":
                status = message["status"]
                events = is_events(message)
                message["headers"] = [*message.get("headers", ()), *told, (b"x-request-id", request_id)]
            await send(message)

        self._telemetry.in_progress.inc()
        try:
            await self._app(scope, receive, tagged)
        except asyncio.CancelledError:
            # Only the end of a stop's drain comes to here: a caller that left was noticed below.
            stop = errors.ServerStopping(retry_after=1)
            if status == CALLER_LEFT:
                await respond(stop)(scope, receive, tagged)
            elif events:
                await tagged(part(event_of(failure_of(stop)), more=False))
            else:
                raise
        except Exception:
            log.exception("request %s failed unexpectedly", request_id.decode())
        finally:
            self._telemetry.in_progress.dec()
            self._record(scope, status, request_id, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, request_id: bytes, seconds: float) -> None:
        route = scope.get("route")
        handler = getattr(route, "path", UNMATCHED)
        method = scope["method"] if route is not None else "any"
        self._telemetry.answered(handler, method, status, seconds)
        if self._access_log:
            # The path is the caller's text: its repr keeps line breaks out of the log.
            access.info(
                "%s %r %d %.1f ms %s",
                scope["method"],
                scope["path"],
                status,
                seconds * 1000,
                request_id.decode(),
            )


def _request_id(headers: dict[bytes, bytes]) -> bytes:
    """The caller's own id if it is harmless in headers and logs, else a new one."""
    given = headers.get(b"x-request-id")
    return given if given and _SANE_ID.fullmatch(given) else os.urandom(16).hex().encode()
