"""The scheduler process as a whole: that its loops run, and end."""

import asyncio
import os
from pathlib import Path

import pytest

from inferq.config.sections import Media
from queues.scheduler import Scheduler
from storage import migrate
from storage.artifacts import LEFTOVER_AGE, ArtifactStore
from storage.keys import KeyStore
from storage.ledger import Ledger
from storage.media import MediaStore
from storage.opening import Storage
from tests.queues.builders import PREFIX, bench, eventually, settings_for

URL = "sqlite:///inferq.db"


async def test_it_removes_what_killed_writers_left(redis_url: str, tmp_path: Path):
    await migrate.upgrade(URL, tmp_path)
    artifacts = await ArtifactStore.open("artifacts", tmp_path)
    kept = await artifacts.put(b"an artifact")
    (temp,) = tmp_path.glob("artifacts/**/temp")
    old, young = temp / "old", temp / "young"
    for file in (old, young):
        file.write_bytes(b"half of one")
    long_ago = old.stat().st_mtime - LEFTOVER_AGE - 60
    os.utime(old, (long_ago, long_ago))
    ledger = await Ledger.open(URL, tmp_path)
    media = MediaStore(artifacts, Media())
    storage = Storage(ledger, KeyStore(ledger.database), artifacts, media)
    stopping = asyncio.Event()
    running = asyncio.create_task(Scheduler(settings_for(redis_url), storage).run(stopping))
    await eventually(lambda: asyncio.to_thread(lambda: not old.exists()))
    assert young.exists()
    assert await artifacts.stat(kept.sha256)
    stopping.set()
    await asyncio.wait_for(running, 20)
    await ledger.close()


async def test_a_clock_that_jumps_ahead_ends_no_lease(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All leases seem to have ended at once; the replicas renew them by the new clock meanwhile."""
    await migrate.upgrade(URL, tmp_path)
    ledger = await Ledger.open(URL, tmp_path)
    artifacts = await ArtifactStore.open("artifacts", tmp_path)
    storage = Storage(ledger, KeyStore(ledger.database), artifacts, MediaStore(artifacts, Media()))
    async with bench(redis_url, lease=2.0) as b:
        attempt = await b.running()
        scheduler = Scheduler(b.settings, storage)
        scheduler._trusted_at = 0.0
        await scheduler._reap()
        hour = 3600
        real = scheduler._redis.time

        async def jumped() -> tuple[int, int]:
            seconds, micros = await real()
            return seconds + hour, micros

        monkeypatch.setattr(scheduler._redis, "time", jumped)
        await b.redis.zincrby(f"{PREFIX}leases", -hour, attempt.id)
        await scheduler._reap()
        assert await b.state(attempt.id) == "running"
        assert await b.replica().renew([(attempt.id, attempt.token, None)]) == [True]
        await b.redis.zincrby(f"{PREFIX}leases", -hour, attempt.id)

        async def reaped() -> bool:
            await scheduler._reap()
            return await b.state(attempt.id) == "queued"

        await eventually(reaped)
        await scheduler._redis.aclose()
    await ledger.close()
