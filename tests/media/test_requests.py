"""All files of one request: their bound together, their one deadline, and how many are fetched at a time."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from inferq import errors
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.config.sections import Media as MediaSettings
from inferq.endpoints import ENDPOINTS
from inferq.request import Request, check
from storage import media
from storage.artifacts import ArtifactStore
from storage.media import MediaStore
from tests.media import files
from tests.media.servers import Server, answering, response
from tests.media.test_intake import PNG, artifacts, data_url, digest, media_store, names

__all__ = ["artifacts"]


def naming(*urls: str) -> Request:
    """A request of a conversation that shows these pictures."""
    settings = Settings.model_validate({"models": {"m": {"engine": "vllm", "source": "x", "type": "chat"}}})
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body = {"model": "m", "messages": [{"role": "user", "content": parts}]}
    return check(Catalog(settings), ENDPOINTS["chat/completions"], body)


async def test_the_files_of_a_request_have_a_bound_together(artifacts: ArtifactStore):
    other = files.picture("PNG", (41, 30))
    # Any two of the three fit, so the answer is the same whichever is there first.
    most, size = 2 * max(len(PNG), len(other)), 2 * len(PNG) + len(other)
    store = media_store(artifacts, max_media_bytes=most)
    await store.take_all(naming(data_url(PNG), data_url(other)), tenant="a")
    for third in (data_url(PNG), f"artifact:{digest(PNG)}"):
        with pytest.raises(errors.BodyTooLarge, match=f"limit of {most} bytes") as caught:
            await store.take_all(naming(data_url(PNG), data_url(other), third), tenant="a")
        assert f"{size} bytes" in caught.value.message
        assert str(caught.value.param).startswith("messages[0].content[")
    await store.close()


class Slow:
    """A server that answers after a while, and counts how many wait for it."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.most, self.asked = seconds, 0, 0, 0

    async def __call__(self, _server: Server, _path: bytes, writer: asyncio.StreamWriter) -> None:
        self.now, self.asked = self.now + 1, self.asked + 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
            writer.write(response(PNG))
            await writer.drain()
        finally:
            self.now -= 1


def fetching(artifacts: ArtifactStore, **settings: Any) -> MediaStore:
    return media_store(artifacts, allow_http=True, allow_hosts=["127.0.0.1"], **settings)


async def test_one_deadline_for_all_files_of_a_request(artifacts: ArtifactStore):
    store, slow = fetching(artifacts, request_fetch_timeout=0.5), Slow(0.2)
    began = time.monotonic()
    async with answering(slow) as server:
        with pytest.raises(errors.InvalidRequest, match=r"together took longer than 0\.5 s"):
            await store.take_all(naming(*(server.url(f"/{number}") for number in range(40))), tenant="a")
    assert time.monotonic() - began < 4
    assert slow.asked < 40
    await store.close()


async def test_a_few_files_of_a_request_are_fetched_at_a_time(artifacts: ArtifactStore):
    store, slow = fetching(artifacts), Slow(0.1)
    async with answering(slow) as server:
        request = naming(*(server.url(f"/{number}") for number in range(9)))
        await store.take_all(request, tenant="a")
    assert slow.most == media.AT_ONCE
    assert {place.named for place in request.places()} == {f"artifact:{digest(PNG)}"}
    assert len(request.files) == 9
    await store.close()


async def test_fetches_of_one_process_are_bounded_and_half_of_them_are_for_others(artifacts: ArtifactStore):
    store, slow = fetching(artifacts, max_fetches=3), Slow(0.05)
    async with answering(slow) as server:
        urls = [server.url(f"/{number}") for number in range(3)]
        await asyncio.gather(*(store.take_all(naming(*urls), tenant="a") for _ in range(3)))
        assert (slow.most, slow.asked) == (2, 9)
        await asyncio.gather(*(store.take_all(naming(*urls), tenant=tenant) for tenant in "abab"))
    assert (slow.most, slow.asked) == (3, 21)
    await store.close()


async def test_a_tenant_with_slow_urls_keeps_nobody_else_from_fetching(artifacts: ArtifactStore):
    store, never, quick = fetching(artifacts, max_fetches=4), Slow(60), Slow(0)
    async with answering(never) as stuck, answering(quick) as server:
        slow = [
            asyncio.create_task(store.take(stuck.url(f"/{n}"), param="image", tenant="a")) for n in range(20)
        ]
        while never.now < 2:
            await asyncio.sleep(0.01)
        assert (await store.take(server.url(), param="image", tenant="b")).size == len(PNG)
        assert never.asked == 2
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    await store.close()


async def test_who_gets_no_turn_in_time_is_asked_to_come_again(artifacts: ArtifactStore):
    """Others' slow servers are no fault of his request."""
    store, never, quick = fetching(artifacts, max_fetches=2, request_fetch_timeout=0.3), Slow(60), Slow(0)
    async with answering(never) as stuck, answering(quick) as server:
        slow = [asyncio.create_task(store.take(stuck.url(), param="image", tenant=tenant)) for tenant in "ab"]
        while never.now < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(errors.Unavailable, match=r"busy fetching other files for 0\.3 s") as refused:
            await store.take_all(naming(server.url()), tenant="c")
        assert refused.value.retry_after
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        await store.take_all(naming(server.url()), tenant="c")
    await store.close()


async def test_the_first_error_and_a_cancellation_end_the_other_fetches(artifacts: ArtifactStore, home: Path):
    store, slow = fetching(artifacts), Slow(60)
    async with answering(slow) as server:
        with pytest.raises(errors.InvalidRequest, match="public address"):
            await store.take_all(naming(server.url(), "https://10.0.0.1/"), tenant="a")
        task = asyncio.create_task(store.take_all(naming(server.url(), server.url()), tenant="a"))
        while slow.asked < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert names(artifacts, home) == set()
    await store.close()


def test_the_bound_for_all_files_is_that_for_one_unless_it_is_said():
    assert MediaSettings.model_validate({"max_upload": "1GiB"}).most_bytes == 2**30
    assert MediaSettings.model_validate({"max_upload": "1GiB", "max_media_bytes": 5}).most_bytes == 5
