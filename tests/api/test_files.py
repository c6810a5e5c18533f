"""Files of calls: nothing is fetched for a caller who left or whom a full queue refuses, nothing kept for no model."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from inferq.config import Settings
from tests.api.stack import Stack, settings_for
from tests.media import files
from tests.media.servers import Server, answering, raw, response

MEDIA = {"allow_http": True, "allow_hosts": ["127.0.0.1"]}


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return settings_for(tmp_path / "home", redis_url, media=MEDIA, queue={"max_queue_size": 1})


def showing(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": "demo-chat", "messages": [{"role": "user", "content": parts}]}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/jobs"])
async def test_fetching_ends_when_the_caller_leaves(stack: Stack, path: str) -> None:
    ended = asyncio.Event()

    async def hang(_server: Server, _path: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        except OSError:
            ended.set()

    async with answering(hang) as server:
        call = asyncio.create_task(stack.post(path, showing(server.url())))
        while not server.heads:
            await asyncio.sleep(0.01)
        call.cancel()
        async with asyncio.timeout(5):
            await ended.wait()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/jobs"])
async def test_a_full_queue_refuses_before_anything_is_fetched(stack: Stack, path: str) -> None:
    await stack.submit()
    async with answering(raw(response(files.picture("PNG")))) as server:
        refused = await stack.post(path, showing(server.url()))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert not server.heads
