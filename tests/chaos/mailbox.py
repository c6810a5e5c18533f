"""Whoever is told by webhook: an HTTP server in the suite's own process, which no fault reaches.

It writes down each message and whether its signature is right, which it computes by itself, and refuses some at first.
"""

import base64
import hashlib
import hmac
import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.chaos.history import Journal

KEY = b"the durability suite's own secret"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
HOST = "127.0.0.1"
REFUSED = 8
"""One message of so many is answered with 500 when it comes for the first time."""


class Mailbox:
    """`url` is what jobs name. Messages are kept in the journal, nowhere else."""

    def __init__(self, journals: Path) -> None:
        self._journal = Journal(journals, "mailbox")
        self._seen: set[str] = set()
        self._server = ThreadingHTTPServer((HOST, 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="mailbox", daemon=True)
        self.url = f"http://{HOST}:{self._server.server_port}/hook"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._journal.close()

    def receive(self, headers: dict[str, str], body: bytes) -> int:
        """Note a message; the status to answer with."""
        name = headers.get("webhook-id", "")
        status = 500 if name not in self._seen and zlib.crc32(name.encode()) % REFUSED == 0 else 200
        self._seen.add(name)
        told = json.loads(body)
        data = told["data"]
        self._journal.note(
            "mail",
            id=name,
            type=told["type"],
            subject=data["id"],
            generation=data.get("generation"),
            signed=is_signed(headers, body),
            status=status,
        )
        return status

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        mailbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.send_response(mailbox.receive(headers, body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """The journal says it."""

        return Handler


def is_signed(headers: dict[str, str], body: bytes) -> bool:
    """By the scheme of Standard Webhooks: HMAC-SHA256 of id, time and body."""
    signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
    wanted = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    return headers.get("webhook-signature") == f"v1,{wanted}"
