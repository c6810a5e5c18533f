"""A home with real Redis and SQLite, a stand-in replica, and the watcher as a process or inside the test."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import orjson
from redis.asyncio import Redis

from inferq.config import Settings
from inferq.job import Failure
from queues import open_gateway
from queues.attempts import Attempts, Finish, Outcome
from queues.celery_app import make_app
from queues.queue import JobQueue
from queues.reconciler import Reconciler
from queues.recorder import Recorder
from queues.signals import Signals
from storage import Storage
from watchers.folders import Folders
from watchers.service import Watcher

ROOT = Path(__file__).parents[2]
MODEL = "demo-completion"
CONFIG: dict[str, Any] = {
    "media": {"allow_http": True, "allow_hosts": ["127.0.0.1"]},
    "models": {
        MODEL: {"engine": "noop", "source": "none", "type": "completion", "aliases": ["gpt-demo"]},
        "demo-chat": {"engine": "noop", "source": "none", "type": "chat"},
        "demo-embed": {"engine": "noop", "source": "none", "type": "embedding"},
        "demo-image": {"engine": "noop", "source": "none", "type": "image"},
    },
}


def until_sync(condition: Callable[[], Any], timeout: float = 30.0) -> Any:
    """The first true answer of `condition`; fails when there is none in time."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"did not happen within {timeout} s"
        time.sleep(0.005)
    return answer


async def until(condition: Callable[[], Any], timeout: float = 30.0) -> Any:
    """The same while the test's own tasks go on."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"did not happen within {timeout} s"
        await asyncio.sleep(0.005)
    return answer


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def read_json(path: Path) -> Any:
    return orjson.loads(path.read_bytes())


def request(**fields: Any) -> dict[str, Any]:
    """A request body as a job file may hold it."""
    return {"model": MODEL, "prompt": "hello", **fields}


class Site:
    """One home. `runs` counts how often the stand-in replica ran each prompt."""

    def __init__(self, settings: Settings, config: Path, redis: Redis, storage: Storage) -> None:
        self.settings, self.config = settings, config
        self.redis, self.storage = redis, storage
        self.folders = Folders.of(settings)
        self.folders.prepare()
        self.runs: Counter[str] = Counter()
        self.recorder = Recorder(redis, storage.ledger, settings)

    def drop(self, name: str, content: Any = None, **fields: Any) -> Path:
        """Write beside and rename in, as people are told to do."""
        path = self.folders.inbox / name
        data = (
            content
            if isinstance(content, bytes)
            else orjson.dumps(content or request(**{"prompt": name, **fields}))
        )
        partial = path.with_name(f"{name}.tmp")
        partial.write_bytes(data)
        partial.rename(path)
        return path

    def log(self) -> str:
        """What the processes said so far."""
        return self.config.with_name("watcher.log").read_text()

    def result(self, name: str) -> Path:
        return self.folders.results / name

    def error(self, name: str) -> Path:
        return self.folders.errors / name

    async def jobs(self) -> list[Any]:
        return (await self.storage.ledger.list_jobs(limit=100_000)).jobs

    async def work_once(self, model: str = MODEL, **finish: Any) -> bool:
        """Claim and finish one job, and commit what has ended. A prompt "fail" fails."""
        attempts = Attempts(self.redis, self.settings, model, "replica-1")
        attempt = await attempts.claim()
        if attempt is not None:
            prompt = str(orjson.loads(attempt.job.spec.body).get("prompt"))
            self.runs[prompt] += 1
            await attempts.finish(attempt, _end(prompt, finish), claim_next=False)
        await self.recorder.run_once(block_ms=10)
        return attempt is not None

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A replica at work, and the reconciler: a watcher may die between the commit of a job and its queueing."""
        done = asyncio.Event()
        reconciler = Reconciler(
            *(self.redis, JobQueue(self.redis, self.settings), self.storage.ledger),
            *(Signals(make_app(self.settings), "test"), self.settings),
        )

        async def replica() -> None:
            while not done.is_set():
                if not await self.work_once():
                    await asyncio.sleep(0.005)

        async def reconciling() -> None:
            while not done.is_set():
                await reconciler.run_once()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), 0.5)

        tasks = [asyncio.create_task(replica()), asyncio.create_task(reconciling())]
        try:
            yield
        finally:
            done.set()
            await asyncio.gather(*tasks)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        """The watcher inside this process."""
        gateway = open_gateway(self.settings, self.storage)
        await gateway.start(replies=False)
        stopping = asyncio.Event()
        watcher = Watcher(self.settings, self.folders, self.storage, gateway)
        task = asyncio.create_task(watcher.run(stopping))
        try:
            yield watcher
        finally:
            stopping.set()
            await task
            await gateway.stop()

    @contextlib.contextmanager
    def process(self) -> Iterator[subprocess.Popen[bytes]]:
        """`python -m watchers`."""
        log = self.config.with_name("watcher.log")
        with log.open("ab") as output, start(self.config, self.settings.home, output) as running:
            try:
                yield running
            finally:
                running.kill()


def start(config: Path, home: Path, output: int | IO[bytes] = subprocess.PIPE) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "watchers", "--config", str(config), "--home", str(home)]
    return subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=output)


def _end(prompt: str, finish: dict[str, Any]) -> Finish:
    if prompt == "fail":
        failure = Failure(code="engine_error", message="the engine said no", status=502, param="prompt")
        return Finish(outcome=Outcome.FAILED, failure=failure)
    finish = finish or {"result": orjson.dumps({"choices": [{"text": prompt.upper()}]})}
    return Finish(outcome=Outcome.SUCCEEDED, **finish)
