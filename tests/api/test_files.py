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
    return settings_for(
        tmp_path / "home", redis_url, media=MEDIA, queue={"max_queue_size": 2, "max_tenant_jobs": 2}
    )


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
    for _ in range(2):
        await stack.submit()
    async with answering(raw(response(files.picture("PNG")))) as server:
        refused = await stack.post(path, showing(server.url()))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert not server.heads


async def test_a_link_of_ours_is_not_fetched_and_one_of_another_server_is(stack: Stack) -> None:
    artifact = await stack.context.storage.artifacts.put(files.picture("PNG"), "image/png")
    path = f"/v1/artifacts/{artifact.sha256}"
    assert (await stack.post("/v1/jobs", showing(f"{stack.url}{path}?expires=1"))).status_code == 202
    async with answering(raw(response(b"", status="404 Not Found"))) as server:
        refused = await stack.post("/v1/jobs", showing(server.url(path)))
        assert refused.status_code == 400
        assert refused.json()["error"]["message"].startswith("There is no file at the URL")
        assert len(server.heads) == 1
