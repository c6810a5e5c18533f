"""A replica's service on a real Redis and a real engine process: how its slots are woken, and how they are let go."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferq import errors
from inferq.config import Settings
from inferq.job import JobState
from inferq.scheduling.placement import Place
from queues.connection import connect
from queues.hook_counts import hook_counts
from queues.presence import Presence, ReplicaInfo
from queues.queue import JobQueue
from tests.hooks.conftest import Install, install, seen
from tests.workers.service_site import BELLS, CONTROL, LINGER, Site, service_site, until
from workers import replica, service

__all__ = ["install"]

LEASES = "inferq:leases"


@pytest.fixture
async def site(redis_url: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A replica with two slots and a ready engine. It never looks by itself, so only wakes and bells start work."""
    monkeypatch.setattr(service, "LOOK_EVERY", 600.0)
    monkeypatch.setattr(service, "LINGER", 600.0)
    monkeypatch.setattr("queues.attempts.LINGER", 600.0)
    async with service_site(redis_url, short_dir) as site:
        yield site


async def test_a_lingering_slot_is_woken_by_the_next_job(site: Site) -> None:
    slot = asyncio.create_task(site.service.serve())
    for _ in range(3):
        await site.lingering(1)
        await site.finished(await site.accept())
    assert not slot.done()
    assert await site.redis.llen(BELLS) == 0


async def test_its_calls_of_hooks_are_shown(redis_url: str, short_dir: Path, install: Install) -> None:
    install("note", "def before_run(self, job): self.seen.append(job.id)")
    async with service_site(redis_url, short_dir, hooks={"enabled": ["note"]}) as site:
        job_id = await site.accept()
        await site.finished(job_id)

        async def shown() -> bool:
            return await hook_counts(site.redis, "inferq:") == {("note", "before_run", "ok"): 1}

        await until(shown)
    assert seen("note") == [job_id]


async def test_each_job_of_a_burst_wakes_a_slot_of_its_own(site: Site) -> None:
    slots = [asyncio.create_task(site.service.serve()) for _ in range(2)]
    await site.lingering(2)
    for job_id in [await site.accept(), await site.accept()]:
        await site.finished(job_id)
    await site.lingering(2)
    assert not any(slot.done() for slot in slots)


async def test_there_are_no_more_slots_than_configured(site: Site) -> None:
    slots = [asyncio.create_task(site.service.serve()) for _ in range(2)]
    await site.lingering(2)
    await asyncio.wait_for(site.service.serve(), 5)
    assert len(site.service._taken) == 2
    assert not any(slot.done() for slot in slots)


async def test_a_doorbell_wakes_a_slot_that_lingers_when_all_are_taken(site: Site) -> None:
    slots = [asyncio.create_task(site.service.serve()) for _ in range(2)]
    await site.lingering(2)
    await site.redis.delete(LINGER)
    job_id = await site.accept()
    await asyncio.wait_for(site.service.serve(), 5)
    await site.finished(job_id)
    assert not any(slot.done() for slot in slots)


async def test_a_wake_for_a_slot_that_was_given_back_is_passed_on_as_a_doorbell(site: Site) -> None:
    assert await site.redis.llen(BELLS) == 0, "a wake from before this process began counts"
    await site.redis.xadd(CONTROL, {"wake": "e" * 16})

    async def rung() -> bool:
        return bool(await site.redis.llen(BELLS) == 1)

    await until(rung)


async def test_a_drain_lets_lingering_slots_go_at_once(site: Site) -> None:
    slot = asyncio.create_task(site.service.serve())
    await site.lingering(1)
    await site.service.drain()
    await asyncio.wait_for(slot, 5)
    assert await site.redis.zcard(LINGER) == 0


async def test_a_drain_hands_back_a_job_whose_result_waits_for_the_store(site: Site, short_dir: Path) -> None:
    runner = site.service._runner
    runner._inline = 0
    shutil.rmtree(short_dir / "home" / "artifacts")
    (short_dir / "home" / "artifacts").touch()
    slot = asyncio.create_task(site.service.serve())
    job_id = await site.accept()

    async def waits() -> bool:
        return any(item.store and "cannot be used" in item.store for item in runner.running.values())

    await until(waits)
    before = await site.redis.zscore(LEASES, job_id)
    await site.service._renew()
    assert await site.redis.zscore(LEASES, job_id) > before
    settings = site.service._settings
    processing = settings.processing.model_copy(update={"drain_timeout": 0.0})
    site.service._settings = settings.model_copy(update={"processing": processing})
    await site.service.drain()
    await asyncio.wait_for(slot, 5)
    job = await site.queue.get(job_id)
    assert job is not None
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)


async def test_lingering_is_not_being_busy(site: Site) -> None:
    slot = asyncio.create_task(site.service.serve())
    await site.lingering(1)
    await site.service._show()
    (shown,) = await site.queue.replicas()
    assert (shown.busy, shown.idle_since is None) == (0, False)
    assert not slot.done()


async def test_the_look_wakes_lingering_slots_before_it_takes_new_ones(site: Site) -> None:
    slot = asyncio.create_task(site.service.serve())
    await site.lingering(1)
    # The wake is lost: nobody knows that the slot waits.
    await site.redis.delete(LINGER)
    job_id = await site.accept()
    await site.service._look()
    await site.finished(job_id)
    assert not slot.done()
    assert len(site.service._taken) == 1


@pytest.mark.parametrize("elsewhere", [False, True], ids=["nowhere else", "ready elsewhere"])
async def test_an_engine_that_is_not_installed(redis_url: str, short_dir: Path, elsewhere: bool) -> None:
    """What waits fails with the reason when nobody could run it; a replica on another host will."""
    model = {"engine": "invented", "source": "x"}
    tree = {"queue": {"redis_url": redis_url}, "models": {"m": model}, "home": short_dir / "home"}
    settings = Settings.model_validate(tree)
    redis = connect(settings)
    if elsewhere:
        other = ReplicaInfo(
            name="m@cpu:0.there",
            model="m",
            device="cpu:0",
            node="there",
            pid=1,
            state="ready",
            since=1,
            slots=1,
        )
        await Presence(redis, settings.queue.prefix).show_replica(other)
    site = Site(redis, JobQueue(redis, settings), None)  # type: ignore[arg-type]
    job_id = await site.accept()
    place = Place(model="m", device="cpu:0", node="here", name="m@cpu:0.here")
    with pytest.raises(errors.ConfigError, match="no engine 'invented'"):
        await asyncio.to_thread(replica.run, settings, place)
    job = await site.queue.get(job_id)
    assert job is not None
    assert job.state is (JobState.QUEUED if elsewhere else JobState.FAILED)
    if job.error:
        assert (job.error.code, "no engine 'invented'" in job.error.message) == ("engine_load_failed", True)
    await redis.aclose()


async def test_a_ready_replica_keeps_what_its_load_has_shown(site: Site) -> None:
    async def look() -> bool:
        return "m" in await site.queue.learnt(["m", "other"])

    await until(look)
    learnt = (await site.queue.learnt(["m"]))["m"]
    assert (learnt.source, learnt.device, learnt.facts) == ("noop noop", "cpu:0", {"tokens": 4})
    assert learnt.load_seconds is not None and learnt.load_seconds > 0
    assert learnt.memory_bytes is not None and learnt.memory_bytes > 10_000_000
