"""Servers that answer raw bytes, and what names resolve to in a test."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = Callable[["Server", bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    port: int
    heads: list[bytes] = field(default_factory=list)
    """The head of each request that came."""

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def answering(
    answer: Answer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0
):
    """A server that calls `answer` with each request's path."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            server.heads.append(head)
            await answer(server, head.split(b" ")[1], writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, host, port, ssl=tls)
    server = Server(listening.sockets[0].getsockname()[1])
    async with listening:
        yield server


def raw(data: bytes) -> Answer:
    async def answer(_server: Server, _path: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


def response(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def redirect(to: str, status: str = "302 Found") -> Answer:
    return raw(response(b"moved", f"Location: {to}", status=status))


@dataclass
class Names:
    """What names resolve to; each look-up takes the next answer, the last one stays."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
