"""The reconciler and the reading of a job, with real SQL beside real Redis."""

import asyncio
import math
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from inferq import errors
from inferq.config.sections import Media
from inferq.job import JobState
from inferq.lanes import Lane
from queues.celery_app import make_app
from queues.intake import Intake
from queues.reconciler import Reconciler
from queues.recorder import Recorder
from queues.signals import Signals
from storage import migrate
from storage.artifacts import ArtifactStore
from storage.keys import KeyStore
from storage.ledger import Ledger
from storage.media import MediaStore
from storage.opening import Storage
from tests.queues.builders import CANCELLED, DONE, PREFIX, Bench, bench, spec

URL = "sqlite:///inferq.db"


@asynccontextmanager
async def both(redis_url: str, home: Path) -> AsyncIterator[tuple[Bench, Ledger, Intake, Reconciler]]:
    await migrate.upgrade(URL, home)
    ledger = await Ledger.open(URL, home)
    artifacts = await ArtifactStore.open("artifacts", home)
    async with bench(redis_url) as b:
        signals = Signals(make_app(b.settings))
        storage = Storage(
            ledger,
            KeyStore(ledger.database),
            artifacts,
            MediaStore(artifacts, Media()),
        )
        intake = Intake(b.queue, storage, signals, b.settings)
        yield b, ledger, intake, Reconciler(b.redis, b.queue, ledger, signals, b.settings)
    await ledger.close()


async def finished(b: Bench, ledger: Ledger, intake: Intake) -> str:
    """A durable job that has succeeded and is recorded."""
    asked = spec(durable=True)
    await intake.submit(asked)
    attempt = await b.replica().claim()
    assert attempt is not None
    await b.replica().finish(attempt, DONE, claim_next=False)
    await Recorder(b.redis, ledger, b.settings).run_once(block_ms=10)
    return asked.id


async def watched(reconciler: Reconciler) -> tuple[tuple[int, int], int]:
    """What a pass did, and the most memory that it took."""
    tracemalloc.start()
    found = await reconciler.run_once()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found, most


async def test_a_requeue_that_redis_did_not_hear_of_is_shown_and_queued(redis_url: str, tmp_path: Path):
    async with both(redis_url, tmp_path) as (b, ledger, intake, reconciler):
        job_id = await finished(b, ledger, intake)
        await ledger.requeue(job_id, metadata={"again": True})
        found = await intake.find(job_id)
        assert (found.state, found.generation) == (JobState.QUEUED, 1)
        assert await reconciler.run_once() == (1, 0)
        attempt = await b.replica().claim()
        assert attempt is not None
        assert (attempt.id, attempt.job.generation) == (job_id, 1)


async def test_a_durable_job_that_redis_forgot_is_queued_again(redis_url: str, tmp_path: Path):
    async with both(redis_url, tmp_path) as (b, _, intake, reconciler):
        asked = spec(durable=True)
        await intake.submit(asked)
        await b.redis.flushall()
        assert await reconciler.run_once() == (1, 0)
        assert await reconciler.run_once() == (0, 0)
        assert await b.state(asked.id) == "queued"


async def test_a_row_that_was_read_long_ago_makes_no_job(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whoever read it was frozen; the job has run meanwhile, and Redis has forgotten it."""
    async with both(redis_url, tmp_path) as (b, _, intake, reconciler):
        asked = spec(durable=True)
        await intake.submit(asked)
        await b.redis.flushall()
        before = await b.queue.now() - 31
        monkeypatch.setattr(b.queue, "now", lambda: asyncio.sleep(0, before))
        assert await reconciler.run_once() == (0, 0)
        assert await b.state(asked.id) is None
        monkeypatch.undo()
        assert await reconciler.run_once() == (1, 0)
        assert await b.state(asked.id) == "queued"


async def test_a_cancel_that_redis_did_not_hear_of_takes_the_job_out(redis_url: str, tmp_path: Path):
    async with both(redis_url, tmp_path) as (b, ledger, intake, reconciler):
        asked = spec(durable=True)
        await intake.submit(asked)
        await ledger.cancel(asked.id)
        assert await reconciler.run_once() == (0, 1)
        assert await b.replica().claim() is None
        assert await b.state(asked.id) == "cancelled"


async def test_bodies_are_read_only_to_be_queued_and_a_few_at_a_time(redis_url: str, tmp_path: Path):
    async with both(redis_url, tmp_path) as (b, _, intake, reconciler):
        for _ in range(30):
            await intake.submit(spec(durable=True, body=bytes(2**20)))
        found, most = await watched(reconciler)
        assert found == (0, 0)
        assert most < 5 * 2**20
        await b.redis.flushall()
        found, most = await watched(reconciler)
        assert found == (30, 0)
        assert most < 25 * 2**20
        assert (await b.order())["jobs"] == "30"


async def test_what_is_more_than_a_page_is_looked_at_too(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("queues.reconciler.PAGE", 3)
    async with both(redis_url, tmp_path) as (b, ledger, intake, reconciler):
        asked = [spec(durable=True, lane=lane, tenant=f"t{n}") for lane in Lane for n in range(5)]
        for each in asked:
            await intake.submit(each)
        for _ in range(4):
            assert await b.replica().claim()
        for each in asked[:-1]:
            await ledger.cancel(each.id)
        await b.redis.delete(f"{PREFIX}job:{asked[-1].id}")
        assert await reconciler.run_once() == (1, 14)
        assert [await b.state(each.id) for each in asked] == ["cancelled"] * 14 + ["queued"]


async def test_a_job_that_only_sql_holds_gets_another_lane(redis_url: str, tmp_path: Path):
    async with both(redis_url, tmp_path) as (b, ledger, intake, reconciler):
        offline, again = spec(durable=True), await finished(b, ledger, intake)
        await ledger.accept(offline, bound=9)
        await ledger.requeue(again, metadata={"again": True})
        for job_id in (offline.id, again):
            changed = await intake.reprioritise(job_id, Lane.HIGH)
            assert (changed.state, changed.spec.lane) == (JobState.QUEUED, Lane.HIGH)
        assert await reconciler.run_once() == (2, 0)
        assert (await b.order())["n:high"] == "2"
        await intake.cancel(again)
        with pytest.raises(errors.Conflict):
            await intake.reprioritise(again, Lane.LOW)


async def test_a_job_that_is_not_yet_recorded_shows_neither_result_nor_error(redis_url: str, tmp_path: Path):
    async with both(redis_url, tmp_path) as (b, _, intake, _):
        asked = spec(durable=True)
        await intake.submit(asked)
        assert await b.replica().claim() is not None
        await b.queue.cancel(asked.id, CANCELLED)
        assert await b.redis.hexists(f"{PREFIX}job:{asked.id}", "error")
        found = await intake.find(asked.id)
        assert (found.state, found.error, found.result) == (JobState.RUNNING, None, None)


async def test_a_row_that_cannot_be_queued_keeps_no_other_out(redis_url: str, tmp_path: Path):
    async with both(redis_url, tmp_path) as (b, ledger, _, reconciler):
        odd, good = sorted((spec(durable=True), spec(durable=True)), key=lambda each: each.id)
        await ledger.accept(replace(odd, units=math.inf))
        await ledger.accept(good)
        assert await reconciler.run_once() == (1, 0)
        assert await b.state(good.id) == "queued"
        assert await b.state(odd.id) is None


async def test_who_cancels_is_shown_the_end_while_redis_can_only_be_read(redis_url: str, tmp_path: Path):
    async with both(redis_url, tmp_path) as (b, _, intake, reconciler):
        asked = spec(durable=True)
        await intake.submit(asked)
        assert await b.replica().claim()
        # As with a full disk, or a primary without its copies: what reads is answered, what writes is not.
        await b.redis.config_set("min-replicas-to-write", "1")
        assert (await intake.cancel(asked.id)).state is JobState.CANCELLED
        await b.redis.config_set("min-replicas-to-write", "0")
        await reconciler.run_once()
        assert (await intake.find(asked.id)).state is JobState.CANCELLED


async def test_ends_that_lie_before_the_recorded_offset_are_recorded(redis_url: str, tmp_path: Path):
    """After a failover: the old server was read for longer than these ends took to come into the new one's stream."""
    async with both(redis_url, tmp_path) as (b, ledger, intake, _):
        asked = [spec(durable=True) for _ in range(2)]
        for each in asked:
            await intake.submit(each)
        for _ in asked:
            attempt = await b.replica().claim()
            assert attempt is not None
            await b.replica().finish(attempt, DONE, claim_next=False)
        newest = (await b.redis.xinfo_stream(f"{PREFIX}finish"))["last-generated-id"].decode()
        await ledger.reset_offset("finish", newest)
        recorder = Recorder(b.redis, ledger, b.settings)
        await recorder.align()
        assert await recorder.run_once(block_ms=10) == 2
        assert [(await ledger.get(each.id)).state for each in asked] == [JobState.SUCCEEDED] * 2
        assert await b.redis.xlen(f"{PREFIX}finish") == 0
        assert await ledger.offset("finish") == newest


async def test_only_ends_that_were_recorded_leave_the_stream(redis_url: str, tmp_path: Path):
    async with both(redis_url, tmp_path) as (b, ledger, intake, _):
        recorder = Recorder(b.redis, ledger, b.settings)
        read = b.redis.xread

        async def from_another_server(*args, **options):
            """It has told of a later end; the server that is asked from now on has an earlier one too."""
            return [[name, entries[1:]] for name, entries in await read(*args, **options)]

        for _ in range(2):
            await intake.submit(spec(durable=True))
            attempt = await b.replica().claim()
            assert attempt is not None
            await b.replica().finish(attempt, DONE, claim_next=False)
        b.redis.xread = from_another_server
        assert await recorder.run_once(block_ms=10) == 1
        assert await recorder.run_once(block_ms=10) == 1
        assert len(await ledger.unfinished()) == 0


async def test_ends_are_recorded_a_bounded_number_of_bytes_at_a_time(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("queues.recorder.BYTES", 2**22, raising=False)
    async with both(redis_url, tmp_path) as (b, ledger, intake, _):
        recorder, replica = Recorder(b.redis, ledger, b.settings), b.replica()
        asked = [spec(durable=True, body=bytes(2**20)) for _ in range(20)]
        for each in asked:
            await intake.submit(each)
            attempt = await replica.claim()
            assert attempt is not None
            await replica.finish(attempt, replace(DONE, result=bytes(2**20)), claim_next=False)
        recorded = 0
        tracemalloc.start()
        while count := await recorder.run_once(block_ms=10):
            recorded += count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert recorded == 20
        assert most < 30 * 2**20
        assert await ledger.unfinished() == []
        assert await b.redis.xlen(f"{PREFIX}finish") == 0
