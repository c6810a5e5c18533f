"""The leader's lock: one holds it, and whoever is gone loses it soon."""

import asyncio
from pathlib import Path

import pytest

from inferq import errors
from queues import leader
from queues.connection import connect
from queues.leader import HOLD_EVERY, LOCK_TTL, Leadership
from tests.chaos.test_parts import Network
from tests.queues.builders import PREFIX, bench, eventually, settings_for


async def test_one_leads_until_it_is_gone(redis_url: str):
    async with bench(redis_url) as b:
        first, second = Leadership(b.redis, PREFIX), Leadership(b.redis, PREFIX)
        assert await first.hold()
        assert not await second.hold()
        assert await first.hold()
        await eventually(second.hold)
        assert not await first.hold()


async def test_one_that_ends_gives_the_lock_back(redis_url: str):
    async with bench(redis_url) as b:
        first, second = Leadership(b.redis, PREFIX), Leadership(b.redis, PREFIX)
        assert await first.hold()
        await second.release()
        assert not await second.hold()
        await first.release()
        assert await second.hold()


async def test_a_dead_leader_is_replaced_soon(redis_url: str):
    """Ends of jobs wait for a leader; ten seconds of that were felt."""
    async with bench(redis_url) as b:
        lock = Leadership(b.redis, PREFIX)
        for _ in range(2):
            assert await lock.hold()
            assert 0 < await b.redis.pttl(f"{PREFIX}leader") <= 3000
    assert HOLD_EVERY * 4 < LOCK_TTL


async def test_a_redis_that_does_not_answer_ends_the_lead(
    redis_url: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    """By this process's own clock, and before its connection gives up: somebody else leads by then."""
    monkeypatch.setattr(leader, "LOCK_TTL", 0.2)
    network = Network(redis_url.removeprefix("unix://"), short_dir)
    redis = connect(settings_for(f"redis://127.0.0.1:{network.port}/0"))
    lock = Leadership(redis, PREFIX)
    assert await lock.hold()
    network.set("blackhole")
    with pytest.raises(errors.QueueUnavailable):
        async with asyncio.timeout(8):
            await lock.hold()
    network.set("pass")
    await eventually(lock.hold)
    await redis.aclose()
    network.process.kill()
    network.process.communicate()
