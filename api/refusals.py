"""How a connection is refused: by the protocol, which writes bytes, and by an application that stands in for ours."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from api.body import Body
from api.context import headers_of
from api.departure import CallerLeft
from api.errors import respond
from inferq import errors


def last_answer(error: errors.InferqError, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The bytes of an answer after which the connection ends; `headers` come before its own."""
    response = respond(error)
    response.headers["Connection"] = "close"
    lines = [b"%b: %b\r\n" % header for header in (*headers, *response.raw_headers)]
    return b"".join((STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)))


def too_many() -> errors.TooManyConnections:
    return errors.TooManyConnections("This server has as many open connections as it may; try again soon.")


async def refuse_connection(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of connections that are too many."""
    request = Request(scope, receive)
    try:
        if b"expect" not in headers_of(scope):
            await Body(request, 0).discard()
    except CallerLeft:
        return
    response = respond(too_many())
    response.headers["Connection"] = "close"
    await response(scope, receive, send)
