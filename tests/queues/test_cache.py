"""The result cache: what is found again, what is not, and that it stays within its bounds."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.endpoints import ENDPOINTS
from inferq.request import Request, check
from queues.cache import Cached, ResultCache
from queues.connection import Client, connect

BODY = {"model": "m", "input": ["a", "b"]}


def settings(redis_url: str, home: Path, **cache: Any) -> Settings:
    tree = {
        "queue": {"redis_url": redis_url},
        "models": {
            "m": {"engine": "noop", "source": "weights", "type": "embedding"},
            "picture": {"engine": "noop", "source": "x", "type": "image"},
        },
        "cache": cache,
        "home": home,
    }
    return Settings.model_validate(tree)


def request(found: Settings, endpoint: str = "embeddings", **body: Any) -> Request:
    made = check(Catalog(found), ENDPOINTS[endpoint], {**BODY, **body})
    made.admit()
    return made


@pytest.fixture
async def redis(redis_url: str, tmp_path: Path) -> AsyncIterator[Client]:
    client = connect(settings(redis_url, tmp_path))
    await client.flushall()
    yield client
    await client.aclose()


async def test_an_answer_is_found_by_another_process(redis: Client, redis_url: str, tmp_path: Path) -> None:
    found = settings(redis_url, tmp_path)
    one, other = ResultCache(redis, found), ResultCache(redis, found)
    key = one.key(request(found))
    assert key is not None
    assert key == other.key(request(found, user="somebody"))
    assert await other.find(key) is None
    await one.keep(key, b"line\nline", "application/json")
    assert await other.find(key) == Cached(b"line\nline", "application/json")


async def test_another_question_or_another_model_has_another_key(
    redis: Client, redis_url: str, tmp_path: Path
) -> None:
    found = settings(redis_url, tmp_path)
    first = ResultCache(redis, found).key(request(found))
    assert ResultCache(redis, found).key(request(found, input=["a", "c"])) != first
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"new")
    assert ResultCache(redis, found).key(request(found)) != first


async def test_only_pure_requests_have_a_key(redis: Client, redis_url: str, tmp_path: Path) -> None:
    found = settings(redis_url, tmp_path)
    cache = ResultCache(redis, found)
    picture = {"model": "picture", "prompt": "x"}
    assert cache.key(request(found, "images/generations", **picture)) is None
    seeded = cache.key(request(found, "images/generations", **picture, seed=1))
    assert seeded is not None
    assert seeded == cache.key(
        request(found, "images/generations", **picture, seed=1, response_format="b64_json")
    )
    off = settings(redis_url, tmp_path, enabled=False)
    assert ResultCache(redis, off).key(request(off)) is None


async def test_the_least_recently_used_goes_first(redis: Client, redis_url: str, tmp_path: Path) -> None:
    found = settings(redis_url, tmp_path, max_bytes=3000, max_entry=1200, max_process_bytes=0)
    cache = ResultCache(redis, found)
    for key in ("a", "b"):
        await cache.keep(key, b"x" * 1000, "t")
    assert await cache.find("a") is not None
    await cache.keep("c", b"x" * 1000, "t")
    assert [await cache.find(key) is not None for key in "abc"] == [True, False, True]
    assert int(await redis.hget("inferq:cache.sizes", "total")) == 2 * 1002
    await cache.keep("d", b"x" * 1300, "t")
    assert await cache.find("d") is None


async def test_what_lapsed_leaves_the_books(redis: Client, redis_url: str, tmp_path: Path) -> None:
    cache = ResultCache(redis, settings(redis_url, tmp_path, max_process_bytes=0))
    await cache.keep("a", b"x" * 10, "t")
    await redis.delete("inferq:cache:a")
    assert await cache.find("a") is None
    assert await redis.hgetall("inferq:cache.sizes") == {b"total": b"0"}
    assert await redis.zcard("inferq:cache") == 0


async def test_the_process_keeps_within_its_own_bound(redis: Client, redis_url: str, tmp_path: Path) -> None:
    cache = ResultCache(redis, settings(redis_url, tmp_path, max_process_bytes=2500))
    for key in ("a", "b", "c"):
        await cache.keep(key, b"x" * 1000, "t")
    await redis.flushall()
    assert [await cache.find(key) is not None for key in "abc"] == [False, True, True]


async def test_without_redis_it_is_empty(tmp_path: Path) -> None:
    found = settings(f"unix://{tmp_path}/none.sock", tmp_path, max_process_bytes=0)
    client = connect(found)
    cache = ResultCache(client, found)
    await cache.keep("a", b"x", "t")
    assert await cache.find("a") is None
    await client.aclose()
