"""A light HTTP/1.1 client on asyncio: one keep-alive connection, raw bytes, times of arrival.

Both sides of a comparison are asked through it, and it shares the machine's cores with what it measures: so nothing is
parsed but the head of an answer, and nothing is looked at before the clock has stopped.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

BORDER = "inferq-benchmark-border"


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `address` is ``unix:/path`` or ``host:port``."""

    address: str
    path: str
    headers: Mapping[str, str]

    def request(self, body: Mapping[str, Any]) -> bytes:
        """JSON, or with `form` alone in it a form, in which `@path` is a file."""
        media_type, content = "application/json", b""
        if set(body) == {"form"}:
            media_type, content = f"multipart/form-data; boundary={BORDER}", form(body["form"])
        else:
            content = json.dumps(body).encode()
        lines = [f"POST {self.path} HTTP/1.1", "host: bench", f"content-type: {media_type}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines.append(f"content-length: {len(content)}")
        return "\r\n".join([*lines, "", ""]).encode() + content


def form(fields: Mapping[str, str]) -> bytes:
    """The body of a form."""
    parts = []
    for name, value in fields.items():
        head, content = f'form-data; name="{name}"', value.encode()
        if value.startswith("@"):
            path = Path(value[1:])
            head, content = f'{head}; filename="{path.name}"', path.read_bytes()
        parts.append(f"--{BORDER}\r\ncontent-disposition: {head}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join(parts) + f"--{BORDER}--\r\n".encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and when its parts came (seconds of the monotonic clock)."""

    sent: float
    first: float
    ended: float
    raw: bytes

    @property
    def status(self) -> int:
        return int(self.raw[9:12] or 0)

    @property
    def fault(self) -> str:
        """Why this answer is no good; empty for a good one."""
        head, _, body = self.raw.partition(b"\r\n\r\n")
        if self.status != 200:
            return body.decode(errors="replace")[:300] or "the connection was closed"
        if b"event-stream" in head and b"data: [DONE]" not in body:
            return "a stream ended early: " + body[-300:].decode(errors="replace")
        return ""


class Connection(asyncio.Protocol):
    """One connection. `ask` sends a request and returns its answer; one at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._clear()

    def _clear(self) -> None:
        self._parts: list[bytes] = []
        self._received = 0
        self._whole: int | None = None
        self._chunked = False
        self._head = 0
        self._first = 0.0

    @classmethod
    async def open(cls, address: str) -> "Connection":
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            _, connection = await loop.create_unix_connection(cls, address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            _, connection = await loop.create_connection(cls, host, int(port))
        return connection

    async def ask(self, request: bytes) -> Answer:
        assert self._transport is not None
        self._clear()
        done = self._done = asyncio.get_running_loop().create_future()
        sent = time.perf_counter()
        self._transport.write(request)
        await done
        return Answer(sent, self._first, time.perf_counter(), b"".join(self._parts))

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        self._received += len(data)
        if self._whole is None and not self._chunked:
            self._read_head()
        if self._chunked:
            tail = data if len(data) >= 5 else b"".join(self._parts[-5:])
            if tail.endswith(b"0\r\n\r\n"):
                self._end()
        elif self._whole is not None and self._received >= self._whole:
            self._end()
        if not self._first and (self._chunked or self._whole is not None) and self._received > self._head:
            self._first = time.perf_counter()

    def _read_head(self) -> None:
        seen = b"".join(self._parts)
        end = seen.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = seen[:end].lower()
        self._head = end
        at = head.find(b"content-length:")
        if at >= 0:
            self._whole = end + int(head[at + 15 : head.index(b"\r\n", at)])
        else:
            self._chunked = True

    def _end(self) -> None:
        if self._done and not self._done.done():
            self._first = self._first or time.perf_counter()
            self._done.set_result(None)
