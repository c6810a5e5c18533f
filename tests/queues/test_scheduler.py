"""The scheduler process as a whole: that its loops run, and end."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from inferq.config import Settings
from inferq.config.sections import Media
from inferq.job import JobState, new_job_id
from queues.scheduler import Scheduler
from storage import migrate
from storage.artifacts import LEFTOVER_AGE, ArtifactStore
from storage.keys import KeyStore
from storage.ledger import Ledger
from storage.media import MediaStore
from storage.opening import Storage
from storage.schedules import Schedule
from tests.queues.builders import MODEL, PREFIX, bench, eventually, settings_for, spec
from tests.storage.builders import event

URL = "sqlite:///inferq.db"


@asynccontextmanager
async def scheduler_of(settings: Settings, home: Path) -> AsyncIterator[Scheduler]:
    """One that does not run yet."""
    await migrate.upgrade(URL, home)
    ledger = await Ledger.open(URL, home)
    artifacts = await ArtifactStore.open("artifacts", home)
    storage = Storage(ledger, KeyStore(ledger.database), artifacts, MediaStore(artifacts, Media()))
    scheduler = Scheduler(settings, storage)
    yield scheduler
    await scheduler._redis.aclose()
    await ledger.close()


async def trusting(scheduler: Scheduler) -> None:
    """It has seen a Redis that was there for long: a lease that has ended has ended."""
    await scheduler._watch_redis()
    scheduler._trusted_at = 0.0


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
    async with bench(redis_url, lease=2.0) as b, scheduler_of(b.settings, tmp_path) as scheduler:
        attempt = await b.running()
        await trusting(scheduler)
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


async def test_slow_answers_are_no_jump_of_the_clock(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What a busy machine makes slow must not keep lost jobs waiting for another lease."""
    async with bench(redis_url, lease=2.0) as b, scheduler_of(b.settings, tmp_path) as scheduler:
        now, delays = 1000.0, iter((5.0, 0.0))
        monkeypatch.setattr("queues.scheduler.time", SimpleNamespace(monotonic=lambda: now))
        scheduler._trusted_at = 0.0

        async def answered_late() -> tuple[int, int]:
            nonlocal now
            asked, now = now, now + next(delays)
            return int(asked), 0

        monkeypatch.setattr(scheduler._redis, "time", answered_late)
        for _ in range(2):
            await scheduler._watch_clock()
            now += 1.0
        assert scheduler._trusted_at == 0.0


async def test_a_lost_job_calls_a_replica(redis_url: str, tmp_path: Path):
    async with bench(redis_url) as b, scheduler_of(b.settings, tmp_path) as scheduler:
        await b.running()
        await b.expire_leases()
        await trusting(scheduler)
        scheduler._signals.start()
        await scheduler._reap()
        scheduler._signals.stop()
        assert await b.redis.llen(f"{PREFIX}bell.{MODEL}") == 1


async def test_lost_jobs_wait_for_no_leader(redis_url: str, tmp_path: Path):
    """The leader may have died with the replica."""
    async with bench(redis_url, lease=1.0) as b, scheduler_of(b.settings, tmp_path) as scheduler:
        await b.redis.set(f"{PREFIX}leader", "one that is dead")
        attempt = await b.running()
        await b.expire_leases()
        stopping = asyncio.Event()
        running = asyncio.create_task(scheduler.run(stopping))

        async def queued_again() -> bool:
            return await b.state(attempt.id) == "queued"

        await eventually(queued_again)
        assert not scheduler._leading.is_set()
        stopping.set()
        await asyncio.wait_for(running, 20)


async def test_nothing_is_taken_back_when_redis_was_away(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its replicas could not renew. The first look at a Redis that is back must see that, whoever leads."""
    async with bench(redis_url) as b, scheduler_of(b.settings, tmp_path) as scheduler:
        attempt = await b.running()
        await b.expire_leases()
        real = scheduler._redis.info

        async def long_there(section: str) -> dict[str, object]:
            return {**await real(section), "uptime_in_seconds": 1000}

        monkeypatch.setattr(scheduler._redis, "info", long_there)
        await trusting(scheduler)
        scheduler._run_id = "another Redis"
        await scheduler._reap()
        assert await b.state(attempt.id) == "running"
        await trusting(scheduler)
        scheduler._away = True
        await scheduler._reap()
        assert await b.state(attempt.id) == "running"
        await trusting(scheduler)
        await scheduler._reap()
        assert await b.state(attempt.id) == "queued"


async def test_the_lock_is_held_while_the_lead_is_taken(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With a slow database that takes longer than the lock lasts."""
    async with bench(redis_url) as b, scheduler_of(b.settings, tmp_path) as scheduler:
        monkeypatch.setattr("queues.scheduler.HOLD_EVERY", 0.01)
        may_go_on = asyncio.Event()
        monkeypatch.setattr(scheduler._recorder, "align", may_go_on.wait)
        held = 0
        hold = scheduler._leadership.hold

        async def counted() -> bool:
            nonlocal held
            held += 1
            return await hold()

        monkeypatch.setattr(scheduler._leadership, "hold", counted)
        stopping = asyncio.Event()
        running = asyncio.create_task(scheduler.run(stopping))
        await eventually(lambda: held > 10)
        assert not scheduler._leading.is_set()
        may_go_on.set()
        await eventually(scheduler._leading.is_set)
        await b.redis.set(f"{PREFIX}leader", "another")
        await eventually(lambda: not scheduler._leading.is_set())
        stopping.set()
        await asyncio.wait_for(running, 20)


async def test_work_goes_on_as_places_become_free(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """More than a tenant may have at a time, and no look for more of it but when some has ended."""
    monkeypatch.setattr("queues.scheduler.BEGIN_EVERY", 3600.0)
    settings = settings_for(redis_url, models={MODEL: {"engine": "text", "source": "m", "type": "chat"}})
    async with scheduler_of(settings, tmp_path) as scheduler:
        storage, now = scheduler._storage, time.time()
        first = spec(durable=True)
        await storage.ledger.accept(first)
        await storage.ledger.record([event(first, result=b'{"text": "x"}')], stream="s", old="0-0", new="1-0")
        body = {"model": MODEL, "messages": [{"role": "user", "content": "{{jobs.0.text}}"}]}
        wanted = spec(durable=True, body=orjson.dumps(body), depends_on=(first.id,), due_at=now - 1)
        waiting = [replace(wanted, id=new_job_id()) for _ in range(10)]
        for each in waiting:
            await storage.ledger.accept(each, state=JobState.SCHEDULED)
        job = {"model": MODEL, "body": {"messages": [{"role": "user", "content": "x"}]}}
        for number in range(10):
            named = {"id": new_job_id(), "name": f"s{number}", "tenant": "default", "created_at": now}
            await storage.schedules.create(
                Schedule(**named, cron="0 0 1 1 *", timezone="UTC", request=orjson.dumps(job), next_at=now)
            )
        stopping = asyncio.Event()
        running = asyncio.create_task(scheduler.run(stopping))

        async def all_done() -> bool:
            unfilled = await storage.waiting.unfilled(now=time.time(), limit=99)
            return not unfilled and all(each.last_job for each in await storage.schedules.list(tenant=None))

        await eventually(all_done)
        stopping.set()
        await asyncio.wait_for(running, 20)
