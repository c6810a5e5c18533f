"""What the tests of the queues are built from: a queue on the test's own Redis, jobs, and a poll with a deadline."""

import asyncio
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import redis
from redis.asyncio import Redis

from inferq.config import Settings
from inferq.job import Failure, JobSpec, new_job_id
from queues import embedded
from queues.attempts import Attempt, Attempts, Finish, Outcome
from queues.connection import connect
from queues.queue import JobQueue
from queues.scripts import Scripts

MODEL = "demo"
PREFIX = "inferq:"
CANCELLED = Failure(code="cancelled", message="the job was cancelled", status=499)
BROKEN = Failure(code="engine_error", message="the engine failed", status=500)
DONE = Finish(outcome=Outcome.SUCCEEDED, seconds=1.0, result=b"{}")
AGAIN = Finish(outcome=Outcome.RETRY, failure=BROKEN)
BACK = Finish(outcome=Outcome.HANDBACK)


def settings_for(
    url: str,
    *,
    models: dict[str, Any] | None = None,
    tenants: dict[str, Any] | None = None,
    **queue: Any,
) -> Settings:
    tree = {"queue": {"redis_url": url, **queue}, "models": models or {}, "tenants": tenants or {}}
    return Settings.model_validate(tree)


def spec(**changes: Any) -> JobSpec:
    """An interactive job with a new id."""
    values = {"id": new_job_id(), "model": MODEL, "endpoint": "chat/completions", "body": b"{}", "kept": True}
    return JobSpec(**{**values, "created_at": time.time(), **changes})


class Bench:
    """A queue, replicas that take from it, and the bare Redis to look at both."""

    def __init__(self, client: Redis, settings: Settings):
        self.redis = client
        self.settings = settings
        self.queue = JobQueue(client, settings)
        self.scripts = Scripts(client, settings.queue)

    def replica(self, name: str = "replica", model: str = MODEL, node: str = "") -> Attempts:
        return Attempts(self.redis, self.settings, model, name, node)

    async def accepted(self, **changes: Any) -> JobSpec:
        """A job that waits."""
        asked = spec(**changes)
        assert await self.queue.accept(asked, "direct") is not None
        return asked

    async def running(self, **changes: Any) -> Attempt:
        """A job that a replica has claimed."""
        asked = await self.accepted(**changes)
        attempt = await self.replica().claim()
        assert attempt is not None
        assert attempt.id == asked.id
        return attempt

    async def state(self, job_id: str) -> str | None:
        return (await self.queue.states([job_id]))[0]

    async def field(self, job_id: str, name: str) -> str | None:
        value = await self.redis.hget(f"{PREFIX}job:{job_id}", name)
        return value.decode() if value is not None else None

    async def set_field(self, job_id: str, **fields: Any) -> None:
        await self.redis.hset(f"{PREFIX}job:{job_id}", mapping=fields)

    async def order(self, model: str = MODEL) -> dict[str, str]:
        """The model's virtual times and counters; what is 0 is not kept."""
        found = await self.redis.hgetall(f"{PREFIX}order:{model}")
        return defaultdict(lambda: "0", {name.decode(): value.decode() for name, value in found.items()})

    async def expire_leases(self) -> None:
        """All leases end now."""
        for job_id in await self.redis.zrange(f"{PREFIX}leases", 0, -1):
            await self.redis.zadd(f"{PREFIX}leases", {job_id: 1})

    async def reap(self) -> dict[str, str]:
        """Job and the state it got."""
        flat = [
            word.decode() if isinstance(word, bytes) else word for word in await self.scripts("reap", 100)
        ]
        return dict(zip(flat[::4], flat[1::4], strict=True))

    async def due(self) -> dict[str, str]:
        """What the clock asks for: job and the state it got."""
        flat = [word.decode() if isinstance(word, bytes) else word for word in await self.scripts("due", 100)]
        return dict(zip(flat[::4], flat[1::4], strict=True))

    async def pauses_end(self) -> None:
        """The pauses before another attempt are over now."""
        for job_id in await self.redis.zrange(f"{PREFIX}later", 0, -1):
            await self.redis.zadd(f"{PREFIX}later", {job_id: 1})

    async def deadlines_pass(self) -> None:
        """All deadlines are now."""
        for job_id in await self.redis.zrange(f"{PREFIX}expiry", 0, -1):
            await self.redis.zadd(f"{PREFIX}expiry", {job_id: 1})
            await self.redis.hset(f"{PREFIX}job:{job_id.decode()}", "expires", 1)

    async def finished(self) -> list[tuple[str, str, str]]:
        """(job, generation, state) of all entries of the finish stream."""
        entries = await self.redis.xrange(f"{PREFIX}finish")
        return [(e[b"id"].decode(), e[b"gen"].decode(), e[b"state"].decode()) for _, e in entries]

    async def snapshot(self) -> dict[str, Any]:
        """All that is stored, to show that a call changed nothing."""
        return {key.decode(): await self._content(key) for key in sorted(await self.redis.keys("*"))}

    async def _content(self, key: bytes) -> Any:
        # A hash is read by its fields: the order in which Redis dumps them may change while nothing else does.
        if await self.redis.type(key) == b"hash":
            return sorted((await self.redis.hgetall(key)).items())
        return await self.redis.dump(key)


@asynccontextmanager
async def bench(url: str, **queue: Any) -> AsyncIterator[Bench]:
    settings = settings_for(url, **queue)
    client = connect(settings)
    try:
        yield Bench(client, settings)
    finally:
        await client.aclose()


class Server:
    """A redis-server that a test kills, wipes and starts again at the same address."""

    def __init__(self, folder: Path, *extra: str):
        self._argv = embedded.server_argv(folder / "home", folder / "run", extra=extra)
        self._data = folder / "home" / "redis"
        self.url = f"unix://{folder}/run/redis.sock"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        self._process = subprocess.Popen(self._argv)
        client = redis.Redis.from_url(self.url)
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert self._process.poll() is None, "redis-server did not start"
        client.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wipe(self) -> None:
        """Forget everything; the server is down."""
        shutil.rmtree(self._data)
        self._data.mkdir()


async def eventually(
    condition: Callable[[], Awaitable[Any]] | Callable[[], Any], *, within: float = 15.0
) -> Any:
    """The first true answer of `condition`; fails when there is none in time."""
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within} s: {condition}"
        await asyncio.sleep(0.01)


def until(condition: Callable[[], Any], *, within: float = 20.0) -> Any:
    """`eventually` for tests without asyncio."""
    deadline = time.monotonic() + within
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: {condition}"
        time.sleep(0.01)
    return answer
