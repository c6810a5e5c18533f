"""An engine as these tests need it: a tiny HTTP server on a unix socket that answers with the bytes it is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = b"text/event-stream"


@dataclass
class Connection:
    """What a script writes to. `left` is set when the caller has closed the connection."""

    writer: asyncio.StreamWriter
    body: bytes
    left: asyncio.Event
    head: bytes = b""

    async def begin(self, media: bytes = EVENTS) -> None:
        await self.raw(HEAD % media)

    async def piece(self, data: bytes) -> None:
        """One chunk of the body; the pause lets it arrive by itself."""
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await asyncio.sleep(0.01)

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def whole(self, body: bytes, status: int = 200, media: str = "application/json") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n"
        head += "Connection: close\r\n\r\n"
        await self.raw(head.encode() + body)


Script = Callable[[Connection], Awaitable[None]]


@dataclass
class EngineStub:
    """`script` answers the next requests; `bodies` are those that came."""

    address: Path
    script: Script
    bodies: list[bytes] = field(default_factory=list)
    departures: int = 0
    calls: set["asyncio.Task[None]"] = field(default_factory=set)

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(path=str(self.address)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.calls.add(task)
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort() if task.cancelling() else writer.close()
            self.calls.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        connection = Connection(writer, await reader.readexactly(length), asyncio.Event(), head)
        self.bodies.append(connection.body)
        watch = asyncio.create_task(self._watch(reader, connection.left))
        try:
            await self.script(connection)
        finally:
            watch.cancel()

    async def close(self) -> None:
        """End what is still being answered."""
        for task in list(self.calls):
            task.cancel()
        while self.calls:
            await asyncio.sleep(0.01)
        # The loop must see the closed connections before it ends.
        await asyncio.sleep(0.01)

    async def _watch(self, reader: asyncio.StreamReader, left: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1024):
                pass
        self.departures += 1
        left.set()


@contextlib.asynccontextmanager
async def serving(folder: Path, script: Script) -> AsyncIterator[EngineStub]:
    stub = EngineStub(folder / "engine.sock", script)
    server = await asyncio.start_unix_server(stub.serve, str(stub.address))
    try:
        yield stub
    finally:
        server.close()
        await stub.close()


def event(text: str) -> bytes:
    return (
        b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
        % (text.encode())
    )


DONE = b"data: [DONE]\n\n"


def streamed(*pieces: bytes, end: bool = True) -> Script:
    """A stream in these pieces; without `end` the connection breaks off."""

    async def script(connection: Connection) -> None:
        await connection.begin()
        for piece in pieces:
            await connection.piece(piece)
        if end:
            await connection.end()

    return script


def answered(body: bytes, status: int = 200, media: str = "application/json") -> Script:
    async def script(connection: Connection) -> None:
        await connection.whole(body, status, media)

    return script


async def silent(connection: Connection) -> None:
    """Never answers; returns when the caller leaves."""
    await connection.left.wait()


async def hanging_up(connection: Connection) -> None:
    """Closes without a word."""
