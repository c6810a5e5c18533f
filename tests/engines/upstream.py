"""A small real HTTP server that stands for somebody else's: it keeps what it was sent and answers what it is told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    raw: bytes

    def json(self) -> Any:
        return json.loads(self.raw)

    def form(self) -> dict[str, list[tuple[str | None, str, bytes]]]:
        """The parts of a multipart body by field: (file name, media type, content)."""
        head = b"content-type: " + self.headers["content-type"].encode() + b"\r\n\r\n"
        parts: dict[str, list[tuple[str | None, str, bytes]]] = {}
        for part in BytesParser(policy=HTTP).parsebytes(head + self.raw).iter_parts():
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            parts.setdefault(str(name), []).append((part.get_filename(), part.get_content_type(), content))
        return parts


@dataclass
class Answer:
    """What to answer: a body, or pieces of one with a pause between them."""

    body: Any = None
    status: int = 200
    media: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] | None = None
    pause_s: float = 0.0


class Upstream(ThreadingHTTPServer):
    """`answer` decides by the request; `left` is set when a caller goes in the middle of an answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[Received] = []
        self.left = threading.Event()
        self.answer: Callable[[Received], Answer] = lambda request: Answer({"model": "theirs"})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answers(self, body: Any = None, **more: Any) -> None:
        self.answer = lambda request: Answer(body, **more)


class Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        request = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, raw)
        self.server.received.append(request)
        answer = self.server.answer(request)
        self.send_response(answer.status)
        self.send_header("content-type", answer.media)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.pieces is not None:
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.send_pieces(answer)
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def send_pieces(self, answer: Answer) -> None:
        try:
            for piece in answer.pieces or ():
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                time.sleep(answer.pause_s)
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.server.left.set()

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.server.left.set()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Say nothing."""


@contextmanager
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
