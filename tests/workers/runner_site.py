"""A runner on a real Redis and a real store, with an engine that answers as it is told."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferq.config import Settings
from inferq.engine import MediaForm
from inferq.job import Job, JobSpec, new_job_id
from inferq.retry import RetryPolicy
from queues import frames
from queues.attempts import Attempt, Attempts
from queues.celery_app import make_app
from queues.connection import Client, connect
from queues.frames import Frame
from queues.queue import JobQueue
from queues.reply_writer import ReplyWriter
from queues.signals import Signals
from storage.artifacts import ArtifactStore
from tests.workers.engine_stub import EngineStub, Script, serving, silent
from workers.breaker import Breaker
from workers.endings import Endings
from workers.files import Files
from workers.runner import Runner

API = "api1"


@dataclass
class Site:
    redis: Client
    queue: JobQueue
    attempts: Attempts
    runner: Runner
    stub: EngineStub
    artifacts: ArtifactStore
    broken: list[str]
    released: list[str]
    """Jobs whose end the engine was asked to confirm."""

    async def claim(self, **more: Any) -> Attempt:
        """A job that was accepted and is now this replica's."""
        fields: dict[str, Any] = {"body": b"{}", "endpoint": "chat/completions", "max_attempts": 3}
        spec = JobSpec(id=new_job_id(), model="m", **fields | more)
        assert await self.queue.accept(spec, "direct", reply_to=None if spec.durable else API)
        attempt = await self.attempts.claim()
        assert attempt is not None
        return attempt

    async def run(self, script: Script, **more: Any) -> Job:
        """One attempt from beginning to end; the job after that."""
        self.stub.script = script
        attempt = await self.claim(**more)
        assert await self.runner.run(attempt, may_claim=lambda: False) is None
        assert self.runner.running == {}
        return await self.job(attempt.id)

    async def job(self, job_id: str) -> Job:
        job = await self.queue.get(job_id)
        assert job is not None
        return job

    async def begun(self, attempt: Attempt) -> asyncio.Task[Attempt | None]:
        """The attempt runs, and the engine has its request."""
        before = len(self.stub.bodies)
        task = asyncio.create_task(self.runner.run(attempt, may_claim=lambda: False))
        await until(lambda: len(self.stub.bodies) > before)
        return task

    async def replies(self) -> list[Frame]:
        entries = await self.redis.xrange(f"inferq:reply:{API}")
        return [frame for _, fields in entries for frame in frames.unpack(fields[b"b"])]


async def until(look: Callable[[], Any], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not look():
        assert time.monotonic() < deadline, f"not within {within} s"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def runner_site(redis_url: str, folder: Path) -> AsyncIterator[Site]:
    """The artifacts lie in `home/artifacts` below the folder, whose path is short enough for a socket."""
    tree = {"queue": {"redis_url": redis_url}, "models": {"m": {"engine": "noop", "source": "x"}}}
    settings = Settings.model_validate(tree | {"home": folder / "home"})
    redis = connect(settings)
    signals = Signals(make_app(settings), "test")
    signals.start()
    artifacts = await ArtifactStore.open(settings.storage.artifacts_url, settings.home)
    attempts = Attempts(redis, settings, "m", "m@cpu:0.here")
    writer = ReplyWriter(redis, attempts, settings.queue.prefix)
    broken: list[str] = []
    released: list[str] = []

    async def lives_on(_session: object) -> bool:
        return False

    async def on_released(job_id: str) -> None:
        released.append(job_id)

    async with serving(folder, silent) as stub, stub.session() as session:
        runner = Runner(
            attempts,
            writer,
            signals,
            artifacts,
            Files(artifacts, MediaForm.PATH),
            inline_result=1000,
            judge=Endings(RetryPolicy(delay=0.0), Breaker(5, 10.0)),
            session=lambda: session,
            on_broken=lambda: broken.append("broken"),
            died=lives_on,
            released=on_released,
        )
        yield Site(redis, JobQueue(redis, settings), attempts, runner, stub, artifacts, broken, released)
    signals.stop()
    await redis.aclose()
