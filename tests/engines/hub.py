"""A small hub on this machine that speaks Hugging Face's and ModelScope's APIs, and can be told to misbehave."""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
PIECE = 2**16


@dataclass
class Hub:
    """`files` by repository and path. The faults are read anew by every request."""

    files: dict[str, dict[str, bytes]]
    url: str = ""
    cut_after: int | None = None
    """Bytes after which a download's connection is cut."""
    cut_later: int = 0
    """By how much more each time."""
    cuts: int = 10**9
    """How many downloads are cut."""
    pause_s: float = 0.0
    """Between pieces of a download."""
    silent_s: float = 0.0
    """Before the first byte of a download."""
    ranges: bool = True
    head: bool = True
    corrupt: bool = False
    endless: bool = False
    status: int | None = None
    """Answered to downloads."""
    failures: int = 10**9
    """How many downloads get this status."""
    redirect: str | None = None
    """Where downloads are redirected to; `{path}` is the file's."""
    paths: dict[str, str] = field(default_factory=dict)
    """What the listing says in place of a path."""
    sizes: dict[str, int | None] = field(default_factory=dict)
    """What the listing says in place of a size; None: nothing."""
    etag: str | None = '"one"'
    served: Counter[str] = field(default_factory=Counter)
    """Bytes of bodies by path."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path with query, and headers."""

    def downloads(self) -> int:
        return sum(self.served.values())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _huggingface(hub: Hub, repo: str) -> Any:
    siblings = []
    for path, data in hub.files[repo].items():
        entry: dict[str, Any] = {
            "rfilename": hub.paths.get(path, path),
            "size": hub.sizes.get(path, len(data)),
        }
        if len(data) > 1000:
            entry["lfs"] = {"sha256": sha256(data), "size": entry["size"], "pointerSize": 1}
        else:
            entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        siblings.append(entry)
    return {"id": repo, "sha": COMMIT, "siblings": siblings}


def _modelscope(hub: Hub, repo: str) -> Any:
    entries: list[dict[str, Any]] = [{"Path": "sub", "Type": "tree", "Size": 0}]
    entries += [
        {
            "Path": hub.paths.get(path, path),
            "Type": "blob",
            "Size": hub.sizes.get(path, len(data)),
            "Sha256": sha256(data),
            "Revision": "r1",
        }
        for path, data in hub.files[repo].items()
    ]
    return {"Code": 200, "Success": True, "Data": {"Files": entries}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        if self.hub.head:
            self.do_GET()
        else:
            self._answer(405, b"")

    def do_GET(self) -> None:
        hub = self.hub
        hub.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        for repo in hub.files:
            if path.startswith(f"/api/models/{repo}/revision/"):
                return self._json(_huggingface(hub, repo))
            if path == f"/api/v1/models/{repo}/repo/files":
                return self._json(_modelscope(hub, repo))
            if path == f"/api/v1/models/{repo}/repo":
                return self._file(repo, query["FilePath"][0])
            if path.startswith(f"/{repo}/resolve/{COMMIT}/"):
                return self._file(repo, path.removeprefix(f"/{repo}/resolve/{COMMIT}/"))
            if path.startswith(f"/plain/{repo}/"):
                return self._file(repo, path.removeprefix(f"/plain/{repo}/"), plain=True)
        return self._answer(404, b"nothing")

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode())

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _file(self, repo: str, path: str, *, plain: bool = False) -> None:
        hub = self.hub
        if hub.redirect and not plain:
            return self._answer(302, b"", Location=hub.redirect.format(path=path))
        if hub.status and hub.failures > 0 and self.command == "GET":
            hub.failures -= 1
            return self._answer(hub.status, b"not now", Retry_After="0")
        if hub.silent_s:
            time.sleep(hub.silent_s)
        data = hub.files[repo].get(path)
        if data is None:
            return self._answer(404, b"nothing")
        if hub.corrupt:
            data = bytes(len(data) - 1) + b"!"
        first = self._first(data)
        self.send_response(206 if first else 200)
        if hub.etag:
            self.send_header("ETag", hub.etag)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        if hub.endless:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        if self.command == "HEAD":
            return None
        return self._endless(path) if hub.endless else self._send(path, data[first:])

    def _first(self, data: bytes) -> int:
        wanted = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if not wanted or not self.hub.ranges or (condition and condition != self.hub.etag):
            return 0
        first = int(wanted.removeprefix("bytes=").rstrip("-"))
        return first if first < len(data) else 0

    def _send(self, path: str, data: bytes) -> None:
        hub, sent = self.hub, 0
        self.close_connection = True
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            if hub.cut_after is not None and hub.cuts > 0 and sent + len(piece) > hub.cut_after:
                hub.cuts -= 1
                hub.cut_after += hub.cut_later
                return
            self._write(path, piece)
            sent += len(piece)
            if hub.pause_s:
                time.sleep(hub.pause_s)

    def _endless(self, path: str) -> None:
        self.close_connection = True
        while True:
            self._write(path, f"{PIECE:x}\r\n".encode() + bytes(PIECE) + b"\r\n")

    def _write(self, path: str, piece: bytes) -> None:
        self.wfile.write(piece)
        self.hub.served[path] += len(piece)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are what these tests are about."""


@contextmanager
def serving(files: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    hub = Hub(files)
    handler: Callable[..., _Handler] = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
