"""A replica's service on a real Redis, with a real engine process."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from inferq.config import Settings
from inferq.job import Job, JobSpec, JobState, new_job_id
from inferq.scheduling.placement import Place
from queues.celery_app import make_app
from queues.connection import Client, connect
from queues.queue import JobQueue
from queues.signals import Signals
from storage.artifacts import ArtifactStore
from workers import replica
from workers.service import ReplicaService

NAME = "m@cpu:0.here"
CONTROL, LINGER, BELLS = f"inferq:ctl:{NAME}", "inferq:linger:m", "inferq:bell.m"


@dataclass
class Site:
    redis: Client
    queue: JobQueue
    service: ReplicaService

    async def accept(self, text: str = "x", **more: Any) -> str:
        body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
        fields: dict[str, Any] = {"endpoint": "chat/completions", "body": body, "kept": True}
        spec = JobSpec(id=new_job_id(), model="m", **fields | more)
        assert await self.queue.accept(spec, "direct") is not None
        return spec.id

    async def finished(self, job_id: str) -> None:
        await self.ends(job_id, JobState.SUCCEEDED)

    async def ends(self, job_id: str, state: JobState) -> Job:
        """The job, once it is in this state."""
        await until(lambda: self._is(job_id, state))
        job = await self.queue.get(job_id)
        assert job is not None
        return job

    async def lingering(self, count: int) -> None:
        await until(lambda: self._count(count))

    async def _count(self, count: int) -> bool:
        return bool(await self.redis.zcard(LINGER) == count)

    async def _is(self, job_id: str, state: JobState) -> bool:
        job = await self.queue.get(job_id)
        return job is not None and job.state is state


async def until(look: Callable[[], Awaitable[Any]], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not await look():
        assert time.monotonic() < deadline, f"not within {within} s"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def service_site(
    redis_url: str, folder: Path, *, processing: Any = None, hooks: Any = None, **model: Any
) -> AsyncIterator[Site]:
    """A replica of a model of the engine `noop` with two slots, ready; `model` are more of its settings."""
    entry = {"engine": "noop", "source": "noop", "slots": 2, **model}
    tree = {
        "queue": {"redis_url": redis_url},
        "models": {"m": entry},
        "processing": processing or {},
        "hooks": hooks or {},
    }
    settings = Settings.model_validate(tree | {"home": folder / "home"})
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    (settings.home / "logs").mkdir(parents=True)
    redis = connect(settings)
    await redis.xadd(CONTROL, {"wake": "f" * 16})
    place = Place(model="m", device="cpu:0", node="here", name=NAME)
    signals = Signals(make_app(settings), place.name)
    signals.start()
    artifacts = await ArtifactStore.open(settings.storage.artifacts_url, settings.home)
    make_engine = partial(replica._engine_maker(settings, place), folder)
    subject = ReplicaService(settings, place, signals, artifacts, make_engine)
    running = asyncio.create_task(subject.run())
    await until(_usable(subject))
    yield Site(redis, JobQueue(redis, settings), subject)
    await subject.drain()
    await asyncio.wait_for(running, 30)
    signals.stop()
    await redis.aclose()


def _usable(subject: ReplicaService) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return subject._engine.usable

    return look
