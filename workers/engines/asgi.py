"""The HTTP face of an engine as one plain ASGI application.

Owns: reading the body, finding the handler, racing it against the caller's disconnect, streaming, and
turning errors into OpenAI's error object. There is no middleware, because a middleware that buffers hides
the disconnect. A handler is cancelled (asyncio) when its caller leaves; what it holds is released in its
own `finally`. Must not know any endpoint beyond `/health`, `/runs` and `/v1/models`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from workers.engines import encoding, footprint
from workers.engines.failures import (
    BadRequest,
    EngineError,
    EngineFault,
    ModelNotFound,
    NotReady,
    OutOfMemory,
    RouteNotFound,
    TooLarge,
    fault_of,
)
from workers.engines.fields import Fields
from workers.engines.runs import Run, Runs
from workers.engines.window import alone

log = logging.getLogger("inferq.engine")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

EVENTS = "text/event-stream"
ALONE = "x-inferq-alone"
"""Header of a request that ran out of memory before: nothing runs beside it, and its items run one by one."""
BODY_LIMIT = 256 * 1024 * 1024


@dataclass(frozen=True)
class Call:
    """One request as a handler sees it."""

    path: str
    query: str
    headers: Mapping[str, str]
    raw: bytes
    run: Run

    def json(self) -> Any:
        try:
            return encoding.loads(self.raw)
        except ValueError as error:
            raise BadRequest(f"The request body is not valid JSON: {error}.", code="invalid_json") from error


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    body: bytes
    status: int = 200
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Reply:
        return cls(encoding.dumps(value), status)


@dataclass(frozen=True)
class Stream:
    """An answer in pieces; each piece is whole SSE events, ended by `data: [DONE]`, or raw bytes of a media type."""

    pieces: AsyncIterator[bytes]
    media: str = EVENTS


class BrokenStream(Exception):
    """A stream of raw bytes failed after its first one; the server then cuts the connection."""


Handler = Callable[[Call], Awaitable[Reply | Stream]]


class EngineApp:
    """Dispatches calls to the handlers of one engine."""

    def __init__(self, served_name: str) -> None:
        self.served_name = served_name
        self.routes: Mapping[tuple[str, str], Handler] = {}
        self.details: Callable[[], Mapping[str, Any]] = dict
        self.status = "starting"
        self.runs = Runs()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        if method == "GET" and path in ("/health", "/runs", "/v1/models"):
            await send_reply(self._about(path), send)
            return
        try:
            await self._handle(scope, receive, send)
        except EngineError as error:
            await send_reply(Reply.json(error.body(), error.status), send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self.routes.get((scope["method"], scope["path"]))
        if self.status != "ready":
            raise NotReady(f"The engine is {self.status}.")
        if handler is None:
            raise RouteNotFound(f"No route for {scope['method']} {scope['path']}.")
        raw = await read_body(receive)
        if raw is None:
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        alone.set(headers.get(ALONE) == "1")
        query = scope.get("query_string", b"").decode("latin-1")
        with self.runs.track(headers, scope["path"]) as run:
            call = Call(scope["path"], query, headers, raw, run)
            await race(answer(handler, call, send), receive)

    def _about(self, path: str) -> Reply:
        if path == "/runs":
            return Reply.json({"runs": self.runs.view()})
        if path == "/v1/models":
            entry = {"id": self.served_name, "object": "model", "created": 0, "owned_by": "inferq"}
            return Reply.json({"object": "list", "data": [entry]})
        facts = {"status": self.status, "pid": os.getpid(), **footprint.report(), "model": self.served_name}
        facts |= {"running": len(self.runs), "served": self.runs.served, "runs": self.runs.view()}
        return Reply.json(facts | dict(self.details()), 200 if self.status == "ready" else 503)

    def check_model(self, fields: Fields) -> None:
        """Read `model`: absent, or the name this process serves."""
        name = fields.text("model")
        if name is not None and name != self.served_name:
            raise ModelNotFound(
                f"The model '{name}' is not served here; '{self.served_name}' is.", param="model"
            )


async def read_body(receive: Receive) -> bytes | None:
    """The whole body; None when the caller left before it was whole."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT:
            raise TooLarge(f"The body is larger than {BODY_LIMIT} bytes.")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def race(work: Awaitable[None], receive: Receive) -> None:
    """Run `work` until it ends or its caller disconnects; then cancel it and wait until it has unwound."""
    task = asyncio.ensure_future(work)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        task.cancel("caller disconnected")

    watcher = asyncio.ensure_future(watch())
    try:
        await asyncio.wait((task,))
    finally:
        watcher.cancel()
        if not task.done():  # the server itself is being torn down
            task.cancel()
    if not task.cancelled():
        task.result()


async def answer(handler: Handler, call: Call, send: Send) -> None:
    """Call the handler and send what it returns. Failures before the first byte raise EngineError."""
    try:
        reply = await handler(call)
    except EngineError:
        raise
    except Exception as error:
        log.exception("%s failed", call.path)
        raise _fault(error) from error
    if isinstance(reply, Reply):
        await send_reply(reply, send)
    else:
        await send_stream(reply, send)


def _fault(error: Exception) -> EngineFault:
    """What the caller is told; what a failed allocation had cached goes back to the device, for the next one."""
    fault = fault_of(error)
    if isinstance(fault, OutOfMemory):
        footprint.shrink()
    return fault


async def send_reply(reply: Reply, send: Send) -> None:
    headers = [
        (b"content-type", reply.media.encode("latin-1")),
        (b"content-length", str(len(reply.body)).encode()),
        *((key.encode("latin-1"), value.encode("latin-1")) for key, value in reply.headers.items()),
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def send_stream(stream: Stream, send: Send) -> None:
    """Send the pieces. The head waits for the first piece, so an early failure still has its own status."""
    pieces = stream.pieces
    begun = False
    try:
        async for piece in pieces:
            if not begun:
                begun = True
                await send(stream_head(stream.media))
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except Exception as error:
        failure = error if isinstance(error, EngineError) else _fault(error)
        if not isinstance(error, EngineError):
            log.exception("a stream failed")
        if not begun:
            raise failure from error
        if stream.media != EVENTS:
            # Bytes of a sound have no place for an error: the connection ends without its last chunk instead.
            raise BrokenStream(failure.message) from error
        await send({"type": "http.response.body", "body": encoding.event(failure.body()), "more_body": True})
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()
    if not begun:
        await send(stream_head(stream.media))
    await send({"type": "http.response.body", "body": b""})


def stream_head(media: str) -> Message:
    headers = [(b"content-type", media.encode("latin-1")), (b"cache-control", b"no-cache")]
    return {"type": "http.response.start", "status": 200, "headers": headers}
