"""What keys say of tenants reaches Redis on every way into it: their weights, and that a queue is shared."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inferq import errors
from inferq.config.sections import Media
from inferq.fallback import Reroute
from inferq.job import Job, JobState
from queues import tenancy
from queues.celery_app import make_app
from queues.intake import Intake
from queues.queue import JobQueue
from queues.scheduler import Scheduler
from queues.signals import Signals
from storage import migrate
from storage.artifacts import ArtifactStore
from storage.groups import Group
from storage.keys import KeyStore, Role
from storage.ledger import Ledger
from storage.media import MediaStore
from storage.opening import Storage
from tests.queues.builders import DONE, Bench, bench, eventually, spec

URL = "sqlite:///inferq.db"


@asynccontextmanager
async def keyed(redis_url: str, home: Path, **queue: object) -> AsyncIterator[tuple[Bench, Storage]]:
    """A bench whose queue asks the keys of a database."""
    await migrate.upgrade(URL, home)
    ledger = await Ledger.open(URL, home)
    artifacts = await ArtifactStore.open("artifacts", home)
    storage = Storage(ledger, KeyStore(ledger.database), artifacts, MediaStore(artifacts, Media()))
    async with bench(redis_url, **queue) as b:
        b.queue = JobQueue(b.redis, b.settings, storage.keys)
        yield b, storage
    await storage.close()


def intake_of(b: Bench, storage: Storage) -> Intake:
    return Intake(b.queue, storage, Signals(make_app(b.settings)), b.settings)


async def weight(b: Bench, tenant: str = "a") -> str | None:
    return (await b.order()).get(f"w:{tenant}")


async def test_the_newest_live_key_says_what_its_tenant_weighs(redis_url: str, tmp_path: Path):
    async with keyed(redis_url, tmp_path) as (_, storage):
        await storage.keys.create("one", Role.USER, "a", 2.0)
        await storage.keys.create("two", Role.USER, "a", 3.0)
        await storage.keys.create("three", Role.USER, "b", 4.0)
        assert await storage.keys.weights() == {"a": 3.0, "b": 4.0}
        await storage.keys.revoke("two")
        await storage.keys.revoke("three")
        assert await storage.keys.weights() == {"a": 2.0}


@pytest.mark.parametrize("mode", ["direct", "reserved", "restore"])
async def test_a_job_brings_the_weight_of_its_tenant(redis_url: str, tmp_path: Path, mode: str):
    async with keyed(redis_url, tmp_path) as (b, storage):
        await storage.keys.create("key", Role.USER, "a", 2.5)
        await b.queue.accept(spec(tenant="a"), mode)
        await b.queue.accept(spec(tenant="other"), mode)
        assert (await weight(b), await weight(b, "other")) == ("2.5", None)
        await b.queue.accept(spec(tenant="a"), mode, weight=4.0)
        assert await weight(b) == "4.0", "the key that was used says otherwise"


async def test_a_job_that_goes_to_another_model_brings_it(redis_url: str, tmp_path: Path):
    models = {"demo": {"engine": "noop", "source": "none", "fallback": ["spare"]}}
    models["spare"] = {"engine": "noop", "source": "none"}
    async with keyed(redis_url, tmp_path, models=models) as (b, storage):
        await storage.keys.create("key", Role.USER, "a", 2.5)
        await b.running(tenant="a", max_attempts=1)
        await b.expire_leases()
        await b.reap()
        (aside,) = await b.queue.put_aside(1)
        await b.queue.reroute(aside, Reroute("spare", b"{}", 4.0))
        assert (await b.order("spare"))["w:a"] == "2.5"
        await b.replica(model="spare").claim()
        order = await b.order("spare")
        assert float(order["S:a"]) == float(await b.field(aside.id, "est") or 0) / 2.5


async def test_restored_jobs_bring_it(redis_url: str, tmp_path: Path):
    async with keyed(redis_url, tmp_path) as (b, storage):
        await storage.keys.create("key", Role.USER, "a", 2.5)
        await b.queue.restore([Job(spec=spec(tenant="a", durable=True), state=JobState.QUEUED)])
        assert await weight(b) == "2.5"


async def test_so_do_jobs_that_the_scheduler_queues(redis_url: str, tmp_path: Path):
    """A group is released, and a Redis that forgot its jobs gets them back, by a process that no caller talks to."""
    async with keyed(redis_url, tmp_path) as (b, storage):
        await storage.keys.create("key", Role.USER, "a", 2.5)
        jobs = [spec(tenant="a", durable=True, kept=True, group="g", model=model) for model in ("x", "y")]
        group = Group(id="g", tenant="a", total=2, created_at=1.0)
        await intake_of(b, storage).submit_group(group, jobs)
        stopping = asyncio.Event()
        running = asyncio.create_task(Scheduler(b.settings, storage).run(stopping))

        async def known() -> bool:
            orders = [await b.redis.hget(f"inferq:order:{model}", "w:a") for model in ("x", "y")]
            return orders == [b"2.5", b"2.5"]

        await eventually(known)
        await b.redis.flushall()
        await eventually(known)
        stopping.set()
        await asyncio.wait_for(running, 20)


async def test_so_do_jobs_that_are_run_again_and_those_without_a_caller(redis_url: str, tmp_path: Path):
    async with keyed(redis_url, tmp_path) as (b, storage):
        await storage.keys.create("key", Role.USER, "a", 2.5)
        asked = spec(tenant="a", durable=True)
        await intake_of(b, storage).submit(asked)
        assert await weight(b) == "2.5"
        await b.replica().finish(await b.replica().claim(), DONE, claim_next=False)
        await b.redis.flushall()
        await storage.ledger.cancel(asked.id)
        await intake_of(b, storage).requeue(asked.id)
        assert await weight(b) == "2.5"


async def test_what_was_known_last_holds_while_the_database_is_away(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tenancy, "FRESH", 0.0)
    async with keyed(redis_url, tmp_path) as (b, storage):
        await storage.keys.create("key", Role.USER, "a", 2.5)
        await b.queue.accept(spec(tenant="a"), "direct")
        asked = asyncio.Event()

        async def away() -> dict[str, float]:
            asked.set()
            raise errors.StoreUnavailable

        monkeypatch.setattr(storage.keys, "weights", away)
        await b.queue.accept(spec(tenant="a"), "direct")
        await asked.wait()
        await b.redis.flushall()
        await b.queue.accept(spec(tenant="a"), "direct")
        assert await weight(b) == "2.5"


async def test_a_tenant_alone_has_the_whole_queue(redis_url: str, tmp_path: Path):
    async with keyed(redis_url, tmp_path, max_queue_size=3) as (b, storage):
        await storage.keys.create("one", Role.ADMIN, "a")
        await storage.keys.create("two", Role.USER, "a")
        for _ in range(3):
            await b.accepted(tenant="a")
        with pytest.raises(errors.QueueFull, match="max_queue_size"):
            await b.queue.accept(spec(tenant="a"), "direct")


async def test_a_tenant_leaves_half_of_it_to_others_who_have_keys(redis_url: str, tmp_path: Path):
    async with keyed(redis_url, tmp_path, max_queue_size=5) as (b, storage):
        await storage.keys.create("one", Role.USER, "a")
        await storage.keys.create("two", Role.USER, "b")
        for _ in range(3):
            await b.accepted(tenant="a")
        with pytest.raises(errors.QueueFull, match=r"3 jobs of this key's tenant .*max_tenant_jobs"):
            await b.queue.reserve(spec(tenant="a"))
        await b.accepted(tenant="b")
        await b.accepted(tenant="b")


async def test_the_same_of_bytes(redis_url: str, tmp_path: Path):
    async with keyed(redis_url, tmp_path, max_queue_bytes=100) as (b, storage):
        await storage.keys.create("one", Role.USER, "a")
        await b.accepted(tenant="watched", body=b"x" * 50)
        with pytest.raises(errors.QueueFull, match=r"50 bytes of this key's tenant .*max_bytes"):
            await b.queue.accept(spec(tenant="watched"), "direct")
        await b.accepted(tenant="a", body=b"x" * 50)


async def test_a_configured_bound_holds_as_it_is(redis_url: str, tmp_path: Path):
    bounds = {"max_queue_size": 4, "max_tenant_jobs": 4, "tenants": {"b": {"max_jobs": 1}}}
    async with keyed(redis_url, tmp_path, **bounds) as (b, storage):
        for name in ("a", "b"):
            await storage.keys.create(name, Role.USER)
        for _ in range(3):
            await b.accepted(tenant="a")
        await b.accepted(tenant="b")
        with pytest.raises(errors.QueueFull):
            await b.queue.accept(spec(tenant="b"), "direct")
