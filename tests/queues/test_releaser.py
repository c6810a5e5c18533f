"""The releaser, with real SQL beside real Redis: scheduled jobs are queued once, whatever dies in between."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from inferq import errors
from inferq.catalog import Catalog
from inferq.config.sections import Media
from inferq.job import JobSpec, JobState
from queues.celery_app import make_app
from queues.door import Door
from queues.intake import Intake
from queues.reconciler import Reconciler
from queues.releaser import Releaser
from queues.signals import Signals
from storage import migrate
from storage.artifacts import ArtifactStore
from storage.keys import KeyStore
from storage.ledger import Ledger
from storage.media import MediaStore
from storage.opening import Storage
from tests.queues.builders import PREFIX, Bench, Server, bench, spec

URL = "sqlite:///inferq.db"


@dataclass
class Site:
    bench: Bench
    ledger: Ledger
    intake: Intake
    reconciler: Reconciler
    storage: Storage
    signals: Signals

    def releaser(self) -> Releaser:
        settings = self.bench.settings
        door = Door(settings, self.bench.queue, self.storage.media)
        return Releaser(self.bench.queue, self.storage, self.signals, settings, Catalog(settings), door)

    async def state(self, asked: JobSpec) -> JobState:
        return (await self.intake.find(asked.id)).state

    async def waiting(self) -> int:
        return len(await self.bench.redis.keys(f"{PREFIX}job:*"))


@asynccontextmanager
async def site(redis_url: str, home: Path, **queue) -> AsyncIterator[Site]:
    await migrate.upgrade(URL, home)
    ledger = await Ledger.open(URL, home)
    artifacts = await ArtifactStore.open("artifacts", home)
    async with bench(redis_url, **queue) as b:
        signals = Signals(make_app(b.settings))
        media = MediaStore(artifacts, Media())
        storage = Storage(ledger, KeyStore(ledger.database), artifacts, media)
        intake = Intake(b.queue, storage, signals, b.settings)
        reconciler = Reconciler(b.redis, b.queue, ledger, signals, b.settings)
        yield Site(b, ledger, intake, reconciler, storage, signals)
        await storage.media.close()
    await ledger.close()


def soon(**changes) -> JobSpec:
    """A durable job that is due already, as one is whose time has come."""
    return spec(durable=True, **{"due_at": time.time() - 1, **changes})


async def test_a_scheduled_job_holds_nothing_in_redis_until_it_is_due(redis_url: str, tmp_path: Path):
    async with site(redis_url, tmp_path) as s:
        later, due = soon(due_at=time.time() + 3600), soon()
        for asked in (later, due):
            accepted = await s.intake.submit(asked)
            assert (accepted.scheduled, accepted.queued) == (True, False)
        assert await s.waiting() == 0
        assert await s.reconciler.run_once() == (0, 0)
        assert await s.releaser().run_once() == 1
        assert (await s.state(due), await s.state(later)) == (JobState.QUEUED, JobState.SCHEDULED)
        found = await s.intake.find(due.id)
        assert (found.position, found.spec.due_at) == (1, due.due_at)
        attempt = await s.bench.replica().claim()
        assert attempt is not None
        assert attempt.id == due.id
        assert await s.releaser().run_once() == 0
        assert [row.id for row in await s.ledger.unfinished(limit=9)] == [due.id]


async def test_what_dies_between_sql_and_redis_is_mended(redis_url: str, tmp_path: Path):
    async with site(redis_url, tmp_path) as s:
        asked = soon()
        await s.intake.submit(asked)
        await s.storage.waiting.release(now=time.time(), limit=9)
        assert await s.waiting() == 0
        assert await s.releaser().run_once() == 0
        assert await s.reconciler.run_once() == (1, 0)
        assert await s.state(asked) is JobState.QUEUED


async def test_two_at_once_queue_each_job_once(redis_url: str, tmp_path: Path):
    async with site(redis_url, tmp_path) as s:
        asked = [soon() for _ in range(30)]
        for each in asked:
            await s.intake.submit(each)
        counts = await asyncio.gather(*(s.releaser().run_once() for _ in range(3)))
        assert sum(counts) == 30
        claimed = set()
        while attempt := await s.bench.replica().claim():
            claimed.add(attempt.id)
        assert claimed == {each.id for each in asked}


async def test_a_cancel_just_before_the_release_is_kept(redis_url: str, tmp_path: Path):
    async with site(redis_url, tmp_path) as s:
        first, second = soon(), soon()
        for asked in (first, second):
            await s.intake.submit(asked)
        assert (await s.intake.cancel(first.id)).state is JobState.CANCELLED
        assert await s.releaser().run_once() == 1
        # Released in SQL, not yet in Redis, when the cancel comes: its tombstone keeps the job out.
        third = soon()
        await s.intake.submit(third)
        [job] = await s.storage.waiting.release(now=time.time(), limit=9)
        await s.intake.cancel(third.id)
        assert await s.bench.queue.accept(job.spec, "restore", generation=job.generation) is None
        attempt = await s.bench.replica().claim()
        assert attempt is not None
        assert attempt.id == second.id
        assert await s.bench.replica().claim() is None


async def test_what_is_too_late_expires_before_it_is_released(redis_url: str, tmp_path: Path):
    async with site(redis_url, tmp_path) as s:
        asked = soon(expires_at=time.time() - 0.5)
        await s.intake.submit(asked)
        assert await s.releaser().run_once() == 0
        found = await s.intake.find(asked.id)
        assert (found.state, found.error.code if found.error else "") == (JobState.EXPIRED, "expired")
        again = await s.intake.requeue(asked.id)
        assert (again.state, again.spec.expires_at, again.spec.due_at) == (JobState.QUEUED, None, None)


async def test_jobs_without_an_end_get_that_of_the_configuration(redis_url: str, tmp_path: Path):
    async with site(redis_url, tmp_path, queue_timeout="1h") as s:
        asked = soon()
        await s.intake.submit(asked)
        before = time.time()
        await s.releaser().run_once()
        found = await s.intake.find(asked.id)
        assert found.spec.expires_at is not None
        assert 0 <= found.spec.expires_at - before - 3600 < 60
        assert await s.bench.field(asked.id, "expires") == repr(found.spec.expires_at)


async def test_nothing_is_released_while_redis_is_away(short_dir: Path, tmp_path: Path):
    with Server(short_dir) as server:
        async with site(server.url, tmp_path) as s:
            asked, late = soon(), soon(expires_at=time.time() - 0.5)
            server.kill()
            for each in (asked, late):
                await s.intake.submit(each)
            with pytest.raises(errors.QueueUnavailable):
                await s.releaser().run_once()
            row = await s.ledger.get(asked.id)
            assert row is not None
            assert row.state is JobState.SCHEDULED
            assert await s.state(late) is JobState.EXPIRED
            server.start()
            assert await s.releaser().run_once() == 1


async def test_a_chain_runs_link_by_link(redis_url: str, tmp_path: Path):
    async with site(redis_url, tmp_path) as s:
        root = spec(durable=True)
        await s.intake.submit(root)
        middle = spec(durable=True, depends_on=(root.id,))
        last = spec(durable=True, depends_on=(middle.id,))
        for asked in (middle, last):
            await s.intake.submit(asked)
        assert await s.releaser().run_once() == 0
        await s.intake.cancel(root.id)
        assert [await s.state(each) for each in (middle, last)] == [JobState.FAILED, JobState.FAILED]


async def test_what_is_due_meets_the_bounds_of_the_queue(redis_url: str, tmp_path: Path):
    """Of one tenant as much as it may have waiting; another one's is not held up by the rest."""
    async with site(redis_url, tmp_path, max_queue_size=10, max_tenant_jobs=4) as s:
        now = time.time()
        flood = [spec(tenant="flood", due_at=now - 100 + number) for number in range(12)]
        other = spec(tenant="other", due_at=now - 1)
        for asked in [*flood, other]:
            assert (await s.intake.submit(asked)).scheduled
        releaser = s.releaser()
        assert await releaser.run_once() == 5
        assert [await s.state(asked) for asked in flood] == [JobState.QUEUED] * 4 + [JobState.SCHEDULED] * 8
        assert await s.state(other) is JobState.QUEUED
        assert await releaser.run_once() == 0
        await s.intake.cancel(flood[0].id)
        assert await releaser.run_once() == 1
        assert await s.state(flood[4]) is JobState.QUEUED
