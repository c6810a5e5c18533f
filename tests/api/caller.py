"""A caller that speaks bytes, for what no client library would send."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.api.stack import Stack

IN_TIME = 20.0


@dataclass
class Caller:
    """A connection that sends what it is told."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        """Each by itself. One that is no longer listened to stops."""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer, which tells its length."""
        async with asyncio.timeout(IN_TIME):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            return (
                int(first.split()[1]),
                headers,
                await self.reader.readexactly(int(headers["content-length"])),
            )

    async def refusal(self) -> tuple[int, dict[str, Any]]:
        """The status and the error of an answer that is the connection's last."""
        status, headers, body = await self.answer()
        assert headers["connection"] == "close"
        assert headers["content-type"] == "application/json"
        assert await self.rest() == b""
        error: dict[str, Any] = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return status, error

    async def rest(self) -> bytes:
        """All that still comes until the server closes."""
        async with asyncio.timeout(IN_TIME):
            return await self.reader.read()


@contextlib.asynccontextmanager
async def calling(stack: Stack) -> AsyncIterator[Caller]:
    url = httpx2.URL(stack.url)
    caller = Caller(*await asyncio.open_connection(url.host, url.port))
    try:
        yield caller
    finally:
        caller.writer.close()
        with contextlib.suppress(ConnectionError):
            await caller.writer.wait_closed()
