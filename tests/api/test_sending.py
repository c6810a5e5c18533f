"""Callers that do not take their answers, and those that take them slowly; on real sockets."""

import asyncio
import socket
from typing import Any

import httpx2
import pytest

from api import sending, transport
from tests.api.caller import IN_TIME
from tests.api.stack import Stack


def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not read soon waits in the server, not in the kernel."""
    original = transport.Protocol.connection_made

    def made(self: Any, made: asyncio.Transport) -> None:
        made.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        original(self, made)

    monkeypatch.setattr(transport.Protocol, "connection_made", made)


async def unread(stack: Stack, more: bytes = b"") -> tuple[socket.socket, int]:
    """A socket that has asked for much, and how much it is."""
    artifact = await stack.context.storage.artifacts.put(b"a" * 400_000, "text/plain")
    url = httpx2.URL(stack.url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (url.host, url.port))
    key = f"Authorization: Bearer {stack.keys['user']}\r\n"
    head = f"GET /v1/artifacts/{artifact.sha256} HTTP/1.1\r\nHost: x\r\n{key}"
    await loop.sock_sendall(sock, head.encode() + more + b"\r\n")
    return sock, artifact.size


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["open", "closing"])
async def test_a_caller_that_never_reads_is_cut_off(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    monkeypatch.setattr(sending, "UNSENT_SECONDS", 0.2)
    small_buffers(monkeypatch)
    lost = asyncio.Event()
    original = transport.Protocol.connection_lost

    def gone(self: Any, exc: Exception | None) -> None:
        original(self, exc)
        lost.set()

    sock, _ = await unread(stack, more)
    monkeypatch.setattr(transport.Protocol, "connection_lost", gone)
    with sock:
        async with asyncio.timeout(IN_TIME):
            await lost.wait()


async def test_a_caller_that_reads_slowly_is_served(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "UNSENT_SECONDS", 0.2)
    small_buffers(monkeypatch)
    sock, size = await unread(stack, b"Connection: close\r\n")
    got = 0
    with sock:
        while part := await asyncio.get_running_loop().sock_recv(sock, 20_000):
            got += len(part)
            await asyncio.sleep(0.02)
    assert got > size
