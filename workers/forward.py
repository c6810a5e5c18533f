"""Forwarding one attempt to the engine and its answer to the caller. No JSON is parsed or rebuilt on the token path.

An answer counts as good only when it ends as the protocol says: a body with status 200, or a stream whose last event
is ``[DONE]`` with no error event before it. Engines end a stream cleanly when they crash, and send errors with 200.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp

from inferq.job import Failure, JobSpec
from inferq.retry import OUT_OF_MEMORY
from inferq.sse import EventCutter
from workers.engines.failures import tells_no_memory

# At the beginning of a line, where no text of an answer can stand: JSON writes its line ends as two characters.
# Streams of newer endpoints end with an event of their own and no `[DONE]`.
_DONE = re.compile(
    rb"^(?:data: ?\[DONE\]|event: ?(?:response\.(?:completed|incomplete)|message_stop"
    rb"|transcript\.text\.done|speech\.audio\.done|image_(?:generation|edit)\.completed)\r?$)",
    re.MULTILINE,
)
_ERROR = re.compile(
    rb'^(?:data: ?\{ ?"(?:error"|object": ?"error")|event: ?(?:error|response\.failed)\b)', re.MULTILINE
)
EVENTS = "text/event-stream"
TICK = 0.020
"""Seconds between two reads of a dense stream."""
MOST = 2**18
"""Bytes that one read takes; what is left waits for the next tick."""
FEW = 4
"""Streams up to which each piece is read when it comes: the processor has time for that."""
DENSE = 3
"""Pieces that have to come within two ticks of each other before their stream is read in ticks."""


class Pace:
    """When the dense streams of one replica are read on: a few at once, many together at the next tick.

    Reading 32 streams token by token costs a wake of the process for each token, which a model on the same cores
    feels; what came within a tick is read as one piece, all streams in one wake. `streams` tells how many there are.
    """

    def __init__(self, streams: Callable[[], int]):
        self._streams = streams
        self._tick: asyncio.Event | None = None

    async def rest(self, response: aiohttp.ClientResponse) -> None:
        """While streams are many, wait for a tick that finds something; then that is in the response's content.

        The socket is read here because a transport that is paused anew for each tick wakes the process all the same:
        libuv takes it off its list only when data has come.
        """
        connection = response.connection
        # Without one the answer has been received to its end, and the connection serves another request.
        if connection is None or connection.transport is None or connection.protocol is None:
            return
        transport, protocol = connection.transport, connection.protocol
        try:
            while self._streams() > FEW and not transport.is_closing():
                transport.pause_reading()
                await self._next_tick().wait()
                data = _read_waiting(transport)
                if data:
                    protocol.data_received(data)
                if data is not None:
                    return
        finally:
            if not transport.is_closing():
                transport.resume_reading()

    def _next_tick(self) -> asyncio.Event:
        """One event, and so one timer, for all that wait."""
        if self._tick is None or self._tick.is_set():
            self._tick = asyncio.Event()
            asyncio.get_running_loop().call_later(TICK, self._tick.set)
        return self._tick


class EngineRefused(Exception):
    """The engine answered with an error; running the same job again cannot help."""

    def __init__(self, failure: Failure):
        super().__init__(failure.message)
        self.failure = failure


class Break(StrEnum):
    """How an engine broke off."""

    ABSENT = "absent"
    """It was not there, and has not seen the request."""
    CUT = "cut"
    """The connection ended before the answer did, as it does when the engine's process dies."""
    TOLD = "told"
    """It answered that it failed."""


class EngineBroke(Exception):
    """The engine died, or broke off; another attempt may succeed. With a `failure` the engine is well, and told what
    is not.
    """

    def __init__(self, message: str, failure: Failure | None = None, *, how: Break = Break.TOLD):
        super().__init__(message)
        self.failure = failure
        self.how = how


@dataclass(frozen=True, slots=True)
class Body:
    """A whole answer."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a stream: whole server-sent events, or bytes of a sound. `final`: the end of the stream is in it."""

    data: bytes
    media_type: str
    final: bool = False


def _read_waiting(transport: asyncio.Transport) -> bytes | None:
    """What waits in the socket of a paused transport; None when nothing does, empty when its end or an error does."""
    if transport.is_closing():
        return b""
    try:
        return os.read(transport.get_extra_info("socket").fileno(), MOST)
    except BlockingIOError:
        return None
    except OSError:
        return b""


async def forward(
    session: aiohttp.ClientSession, spec: JobSpec, body: bytes, pace: Pace, *, alone: bool = False
) -> AsyncGenerator[Body | Piece, None]:
    """Send a job's body to the engine. Yields one Body, or Pieces until the end of the stream. `alone` asks the engine
    to run it in the smallest pieces.

    Raises EngineRefused, EngineBroke. Closing the iterator closes the request, which cancels it in the engine.
    """
    if session.closed:
        raise EngineBroke("the engine has ended", how=Break.ABSENT)
    headers = {"Content-Type": "application/json", "X-Request-Id": spec.id}
    if alone:
        headers["X-Inferq-Alone"] = "1"
    try:
        async with session.post(f"/v1/{spec.endpoint}", data=body, headers=headers) as response:
            if response.status != 200:
                raise _refusal(response.status, await response.read())
            if response.content_type == EVENTS:
                async for piece in _whole_events(response, pace):
                    yield piece
            elif spec.stream:
                # A body that ends without its last chunk raises here: it was cut off.
                async for part in response.content.iter_any():
                    yield Piece(part, response.content_type)
            else:
                yield Body(await response.read(), response.content_type)
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        raise EngineBroke(str(error) or type(error).__name__, how=Break.CUT) from error


async def _whole_events(response: aiohttp.ClientResponse, pace: Pace) -> AsyncGenerator[Piece, None]:
    """The stream cut at event borders. Raises EngineRefused at an error event, EngineBroke at an early end."""
    cutter = EventCutter()
    done = False
    last, dense, seen = 0.0, 0, 0
    async for piece in response.content.iter_any():
        now = time.monotonic()
        seen += len(piece)
        last, dense = now, dense + 1 if now - last < 2 * TICK else 0
        events = cutter.push(piece)
        if events:
            final = _checked(events)
            done = done or final
            yield Piece(events, EVENTS, final)
            # What came while the caller was busy with these is there already, and may be the last for a long time.
            if dense >= DENSE and response.content.total_bytes == seen:
                await pace.rest(response)
    # An end without its empty line is forgiven, an event without it is not.
    rest = cutter.rest()
    if _DONE.match(rest):
        done = True
        yield Piece(rest.rstrip(b"\r\n") + b"\n\n", EVENTS, final=True)
    if not done:
        raise EngineBroke("the engine ended the stream early", how=Break.CUT)


def _checked(events: bytes) -> bool:
    """True when the end is among these events. Raises EngineRefused, EngineBroke for an error event."""
    wrong = _ERROR.search(events)
    if wrong:
        raise _refusal(500, _error_event(events[wrong.start() :]))
    return _DONE.search(events) is not None


def _error_event(events: bytes) -> bytes:
    """The JSON of an error event, with which these events begin."""
    for line in events.splitlines():
        if line.startswith(b"data:"):
            return line.removeprefix(b"data:").strip()
    return b""


def _refusal(status: int, text: bytes) -> EngineRefused | EngineBroke:
    """What an error answer means: the request's fault is final, the engine's own or its lack of room may pass."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    error: Any = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(value, dict) and isinstance(value.get("response"), dict):
        error = value["response"].get("error")
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        error = {"message": text.decode(errors="replace")[:500] or f"the engine answered {status}"}
    inner = error.get("code")
    if status == 500 and isinstance(inner, int) and 400 <= inner < 600:
        status = inner
    inner = _clean(inner) if isinstance(inner, str) else None
    message = _clean(str(error.get("message") or f"the engine answered {status}"))
    if inner == OUT_OF_MEMORY or (status >= 500 and tells_no_memory(message)):
        return EngineBroke(message, Failure(code=OUT_OF_MEMORY, message=message, status=500))
    if inner in _AWAY:
        return EngineBroke(message, Failure(code=inner, message=message, status=status))
    if status >= 500 or status in _PASSING:
        return EngineBroke(message)
    code = inner or _CODES.get(status, "invalid_request")
    param = _clean(error["param"]) if isinstance(error.get("param"), str) else None
    return EngineRefused(Failure(code=_known(code, message), message=message, status=status, param=param))


def _clean(text: str) -> str:
    """JSON can name half a character, and nobody can write it."""
    return text.encode(errors="replace").decode()


_CODES = {404: "not_found", 413: "body_too_large"}
_PASSING = frozenset({408, 425, 429})
_AWAY = frozenset({"hub_unreachable"})
"""Codes of our engines for what they need and cannot reach."""


def _known(code: str, message: str) -> str:
    """vLLM tells of a prompt that is too long only in words."""
    return "context_length_exceeded" if "maximum context length" in message else code
