"""The result cache: what is found again, what is not, and that it stays within its bounds."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.endpoints import ENDPOINTS
from inferq.request import Request, check
from queues.cache import ENTRY, LOADS_EVERY, Cached, ResultCache
from queues.connection import Client, connect
from queues.presence import Presence, ReplicaInfo

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


class Clock:
    """The process's own clock, as a test sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def ready(
    redis: Client, name: str = "a", model: str = "m", since: float = 1.0, state: str = "ready"
) -> None:
    """A replica reports."""
    shown = ReplicaInfo(
        name=name, model=model, device="cpu:0", node="n", pid=1, state=state, since=since, slots=1
    )
    await Presence(redis, "inferq:").show_replica(shown)


@pytest.fixture
async def redis(redis_url: str, tmp_path: Path) -> AsyncIterator[Client]:
    client = connect(settings(redis_url, tmp_path))
    await client.flushall()
    await ready(client)
    await ready(client, "p", "picture")
    yield client
    await client.aclose()


async def test_an_answer_is_found_by_another_process(redis: Client, redis_url: str, tmp_path: Path) -> None:
    found = settings(redis_url, tmp_path)
    one, other = ResultCache(redis, found), ResultCache(redis, found)
    key = await one.key(request(found), "t")
    assert key is not None
    assert key == await other.key(request(found, user="somebody"), "t")
    assert await other.find(key) is None
    await one.keep(key, b"line\nline", "application/json")
    assert await other.find(key) == Cached(b"line\nline", "application/json")


async def test_another_question_has_another_key(redis: Client, redis_url: str, tmp_path: Path) -> None:
    found = settings(redis_url, tmp_path)
    cache = ResultCache(redis, found)
    assert await cache.key(request(found, input=["a", "c"]), "t") != await cache.key(request(found), "t")


async def test_files_that_change_under_a_loaded_model_change_no_key(
    redis: Client, redis_url: str, tmp_path: Path
) -> None:
    """The replica goes on answering from what it has loaded."""
    found = settings(redis_url, tmp_path)
    first = await ResultCache(redis, found).key(request(found), "t")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"new")
    assert await ResultCache(redis, found).key(request(found), "t") == first


async def test_each_load_begins_with_nothing(redis: Client, redis_url: str, tmp_path: Path) -> None:
    found = settings(redis_url, tmp_path)
    clock = Clock()
    cache = ResultCache(redis, found, clock)
    asked = request(found)
    keys = [await cache.key(asked, "t")]
    await ready(redis, since=2.0)
    assert await cache.key(asked, "t") == keys[0], "a reading serves for a moment"
    clock.now += LOADS_EVERY
    keys.append(await cache.key(asked, "t"))
    await ready(redis, "b", since=3.0)
    clock.now += LOADS_EVERY
    keys.append(await cache.key(asked, "t"))
    assert None not in keys
    assert len(set(keys)) == 3


@pytest.mark.parametrize("state", ["starting", "stopping", "stopped", "failed"])
async def test_without_a_load_there_is_no_key(
    redis: Client, redis_url: str, tmp_path: Path, state: str
) -> None:
    found = settings(redis_url, tmp_path)
    await ready(redis, state=state)
    assert await ResultCache(redis, found).key(request(found), "t") is None
    await redis.flushall()
    assert await ResultCache(redis, found).key(request(found), "t") is None


async def test_tenants_share_answers_unless_they_must_not(
    redis: Client, redis_url: str, tmp_path: Path
) -> None:
    for shared in (True, False):
        found = settings(redis_url, tmp_path, shared=shared)
        cache = ResultCache(redis, found)
        keys = [await cache.key(request(found), tenant) for tenant in ("one", "other")]
        assert (keys[0] == keys[1]) is shared


async def test_only_pure_requests_have_a_key(redis: Client, redis_url: str, tmp_path: Path) -> None:
    found = settings(redis_url, tmp_path)
    cache = ResultCache(redis, found)
    picture = {"model": "picture", "prompt": "x"}
    assert await cache.key(request(found, "images/generations", **picture), "t") is None
    seeded = await cache.key(request(found, "images/generations", **picture, seed=1), "t")
    assert seeded is not None
    assert seeded == await cache.key(
        request(found, "images/generations", **picture, seed=1, response_format="b64_json"), "t"
    )
    off = settings(redis_url, tmp_path, enabled=False)
    assert await ResultCache(redis, off).key(request(off), "t") is None


async def test_the_least_recently_used_goes_first(redis: Client, redis_url: str, tmp_path: Path) -> None:
    bound = 2 * (1002 + ENTRY) + 500
    found = settings(redis_url, tmp_path, max_bytes=bound, max_entry=1200, max_process_bytes=0)
    cache = ResultCache(redis, found)
    for key in ("a", "b"):
        await cache.keep(key, b"x" * 1000, "t")
    assert await cache.find("a") is not None
    await cache.keep("c", b"x" * 1000, "t")
    assert [await cache.find(key) is not None for key in "abc"] == [True, False, True]
    assert int(await redis.hget("inferq:cache.sizes", "total")) == 2 * (1002 + ENTRY)
    await cache.keep("d", b"x" * 1300, "t")
    assert await cache.find("d") is None


async def test_small_answers_are_bounded_too(redis: Client, redis_url: str, tmp_path: Path) -> None:
    bounds = {"max_bytes": 10 * (ENTRY + 3), "max_process_bytes": 5 * (ENTRY + 1)}
    cache = ResultCache(redis, settings(redis_url, tmp_path, **bounds))
    for number in range(20):
        await cache.keep(str(number), b"x", "t")
    assert await redis.zcard("inferq:cache") == 10
    await redis.flushall()
    here = [number for number in range(20) if await cache.find(str(number)) is not None]
    assert here == list(range(15, 20))


async def test_an_answer_lapses_in_the_process_as_it_does_in_redis(
    redis: Client, redis_url: str, tmp_path: Path
) -> None:
    found = settings(redis_url, tmp_path, ttl=60.0)
    clocks = Clock(), Clock()
    maker, finder = (ResultCache(redis, found, clock) for clock in clocks)
    await maker.keep("a", b"x", "t")
    await redis.pexpire("inferq:cache:a", 30_000)
    assert await finder.find("a") is not None
    await redis.delete("inferq:cache:a")
    for cache, clock, left in zip((maker, finder), clocks, (60, 30), strict=True):
        clock.now += left - 1
        assert await cache.find("a") is not None
        clock.now += 1
        assert await cache.find("a") is None


async def test_what_lapsed_leaves_the_books(redis: Client, redis_url: str, tmp_path: Path) -> None:
    cache = ResultCache(redis, settings(redis_url, tmp_path, max_process_bytes=0))
    await cache.keep("a", b"x" * 10, "t")
    await redis.delete("inferq:cache:a")
    assert await cache.find("a") is None
    assert await redis.hgetall("inferq:cache.sizes") == {b"total": b"0"}
    assert await redis.zcard("inferq:cache") == 0


async def test_the_process_keeps_within_its_own_bound(redis: Client, redis_url: str, tmp_path: Path) -> None:
    cache = ResultCache(redis, settings(redis_url, tmp_path, max_process_bytes=2500 + 2 * ENTRY))
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
