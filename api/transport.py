"""One HTTP connection: bounds what a caller may send before a request is whole, and how long it may take over it.

It counts bytes, keeps the clock and answers what the parser cannot take; what is read is the application's to judge.
Bodies are bounded by `api.body`, which knows how large and how slow they may be.
"""

import asyncio
from enum import Enum
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.body import LINGER_BYTES, LINGER_SECONDS
from api.refusals import last_answer, refuse_connection, too_many
from api.sending import SendingClock
from inferq import errors

MOST_HEAD = 64 * 2**10
"""Bytes of a request line and its headers, and again of a body's trailers."""
MOST_HEADERS = 100
MOST_PIPELINED = 16
"""Requests that may wait on one connection behind the one that is answered."""
SPARE = 64
"""Connections beyond the limit that are still listened to, so that probes get through."""
PROBES = frozenset({b"/health", b"/livez", b"/readyz"})
UNREAD_SECONDS = 60.0
"""How long a body may still come that was answered without being read."""


class Reading(Enum):
    """What of a request comes next."""

    NOTHING = "nothing"
    HEAD = "head"
    BODY = "body"


class Protocol(HttpToolsProtocol):
    """Uvicorn's protocol with bounds. Each refusal is an error in the one shape, and ends the connection.

    1. The parser is fed at most MOST_HEAD bytes that are no body: it joins the pieces of a header anew for each piece.
    2. The clock runs while the caller is to send something that `api.body` does not wait for, and nobody is being
    answered: headers, or a body whose answer is already out.
    3. A connection that comes when `most_connections` are open is answered on PROBES alone while they are.
    4. Nobody speaks another protocol here: an offer to is taken out of the headers, which the parser then reads anew.
       It would take what follows the headers for the other protocol, and a body for the next request.
    """

    header_timeout: float
    most_connections: int

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._served = self.app
        self._late = False
        self._running: RequestResponseCycle | None = None  # the request that is answered, or was last
        self._anew = b""  # headers that the parser is to read again
        self._unread = 0  # bytes of a body that came after its answer
        self._reading = Reading.NOTHING
        self._held = 0  # bytes that the parser has taken and that were no body
        self._room = MOST_HEAD  # what the headers that are already whole leave
        self._clock: asyncio.TimerHandle | None = None
        self._refusal: errors.InferqError | None = None
        self._discarding: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._sending = SendingClock(self.loop, transport)
        over = len(self.connections) - self.most_connections
        self._late = over > 0
        if over > 2 * SPARE:
            # So many that lingering for each would take the files that are left for all else.
            self._write(too_many())
            self._close()
        elif over > SPARE:
            self._refuse(too_many())
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._sending.stop()
        super().connection_lost(exc)
        self.pipeline.clear()
        # Uvicorn tells the newest request, which may be one that waits.
        if self._answering:
            self._dismiss()

    def data_received(self, data: bytes) -> None:
        while data and self._discarding is None and not self.transport.is_closing():
            if self._held >= MOST_HEAD:
                self._refuse(_too_large())
                break
            piece, data = data[: MOST_HEAD - self._held], data[MOST_HEAD - self._held :]
            self._held += len(piece)
            self._feed(piece)
            if self._reading is Reading.BODY and not self._answering:
                self._unread += len(piece)
                if self._unread > LINGER_BYTES:
                    self._close()
        if self._discarding is None:
            self._watch()
        else:
            self._discard(data)

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                data, self._anew = self._anew + data[upgrade.args[0] :], b""
            except HttpParserError:
                self._refuse(self._refusal or errors.InvalidRequest("This is no valid HTTP request."))
                return

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sending.stop()
        if self.transport.is_closing():
            self._sending.start()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    # The parser's events

    def on_message_begin(self) -> None:
        self._reading, self._room = Reading.HEAD, MOST_HEAD
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._take(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are not for anybody here, and must not look like headers that were checked.
        if self._reading is Reading.HEAD:
            self._take(len(name) + len(value) + 4)
            if len(self.headers) >= MOST_HEADERS:
                self._break(_too_large())
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._anew = self._without_upgrade()
            return
        if len(self.pipeline) >= MOST_PIPELINED:
            self._break(
                errors.InvalidRequest(f"More than {MOST_PIPELINED} requests wait on this connection.")
            )
        full = self._late and len(self.connections) > self.most_connections
        refused = full and self.url.partition(b"?")[0] not in PROBES
        self.app = refuse_connection if refused else self._served
        super().on_headers_complete()
        self._advance(Reading.BODY)
        self._unread = 0

    def on_body(self, body: bytes) -> None:
        self._held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._anew:
            return
        self._advance(Reading.NOTHING)
        super().on_message_complete()

    def _without_upgrade(self) -> bytes:
        """The headers that were just read, without their offer of another protocol. The parser takes no line breaks
        inside them, so they are what they were.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._break(errors.InvalidRequest("This server is no proxy: there is no CONNECT."))
        version = self.parser.get_http_version().encode()
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(lines))

    # The answers' events

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._sending.start()
        self._watch()

    # Bounds

    def _advance(self, reading: Reading) -> None:
        self._reading, self._held = reading, 0
        self._stop_clock()

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            self._break(_too_large())

    def _break(self, error: errors.InferqError) -> None:
        """Stop the parser, which then raises HttpParserError."""
        self._refusal = error
        raise error

    @property
    def _answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _watch(self) -> None:
        """Start the clock that has to run: for a body nobody reads, for headers, or for the next request."""
        if self._answering or self._clock or self.transport.is_closing():
            return
        if self._reading is Reading.BODY:
            self._clock = self.loop.call_later(UNREAD_SECONDS, self._expire)
        elif self._reading is Reading.HEAD or self._held or self._running is None:
            self._clock = self.loop.call_later(self.header_timeout, self._expire)
        elif self.timeout_keep_alive_task is None:
            # Uvicorn starts it when an answer ends, and stops it for good when the rest of the body still comes.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _expire(self) -> None:
        """A request was begun, or none ever was: say so. After an answer nobody waits for another one."""
        if self._reading is Reading.HEAD or self._running is None:
            self._refuse(errors.HeadersTooSlow(f"The headers did not come within {self.header_timeout:g} s."))
        else:
            self._close()

    def _close(self) -> None:
        self.transport.close()
        self._sending.start()

    # Refusals

    def _refuse(self, error: errors.InferqError) -> None:
        """Answer and end the connection; while another answer is under way on it, end it only."""
        self._stop_clock()
        self._unset_keepalive_if_required()
        if self._reading is Reading.BODY and self._running is self.cycle and not self.cycle.response_started:
            # The one whose body broke off gets the refusal for an answer.
            self._dismiss()
            self.flow.resume_reading()
        if self._answering or self.transport.is_closing():
            self._close()
            return
        self._write(error)
        # Closing at once, while bytes still arrive, would reset the connection and take the answer away.
        self._discarding = LINGER_BYTES
        self.transport.write_eof()
        self._clock = self.loop.call_later(LINGER_SECONDS, self._close)

    def _dismiss(self) -> None:
        """Let the request that is answered find that its caller has left."""
        cycle, self._running = self._running, None
        assert cycle is not None
        cycle.disconnected = True
        cycle.message_event.set()

    def _discard(self, data: bytes) -> None:
        self._discarding = (self._discarding or 0) - len(data)
        if self._discarding < 0:
            self._close()

    def _write(self, error: errors.InferqError) -> None:
        self.transport.write(last_answer(error, self.server_state.default_headers))


def bounded(header_timeout: float, most_connections: int) -> type[Protocol]:
    """The protocol with these bounds; the server makes one for each connection."""
    bounds = {"header_timeout": header_timeout, "most_connections": most_connections}
    return type("BoundedProtocol", (Protocol,), bounds)


def _too_large() -> errors.HeadersTooLarge:
    return errors.HeadersTooLarge(
        f"The request's headers are larger than {MOST_HEAD} bytes or more than {MOST_HEADERS}."
    )
