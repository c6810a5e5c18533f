"""The bar of ordering and leasing: no-op jobs through ready sets and a replica, against no-op tasks of plain Celery.

One side is `celery worker` with a threads pool. The other is the replica's own program, with a function in the place of
its engine. Both have the same number of threads or slots, a Redis of their own started alike, the same body, and no
store of results; neither is asked over HTTP. One process, this one, submits job after job by the ordinary call of each
side: `delay()`, and the accept of an interactive job with its doorbell, as many at once as there are slots. The clock
runs from the first call until nothing waits or runs. So inferq's side also orders by tenant and lane, leases, fences,
renews, keeps the answer in Redis, and tells Flower; Celery's side does none of it. The recorder, which would write the
jobs to SQL, runs on neither side.
"""

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from benchmarks.bars import Result
from benchmarks.own_redis import own_redis
from benchmarks.plan import Scale
from benchmarks.processes import cpu_seconds, tree
from benchmarks.stack import Broken, Program, environment, say
from inferq.config import Settings, load_settings
from inferq.job import JobSpec, new_job_id
from queues.celery_app import make_app
from queues.connection import connect
from queues.queue import JobQueue
from queues.signals import Signals

BARS = ("queue_celery_ratio",)
SLOTS = 16
MODEL = "noop"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]})
PATIENCE = 120.0


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    with _celery() as celery, _inferq() as inferq:
        sides = {"celery": celery, "inferq": inferq}
        for side in sides.values():
            side.run(scale.plain // 5)
        rounds = []
        for number in range(scale.rounds):
            order = list(sides) if number % 2 else list(sides)[::-1]
            rounds.append({name: sides[name].run(scale.plain) for name in order})
            say(f"  round {number + 1}: {rounds[-1]}")
    ratio = statistics.median(each["inferq"]["rate"] / each["celery"]["rate"] for each in rounds)
    yield Result("queue_celery_ratio", ratio, {"slots": SLOTS, "jobs": scale.plain, "rounds": rounds})


class Side:
    """One of the two: how it is given jobs, and how many it still has."""

    def __init__(
        self, program: Program, client: "redis.Redis", submit: Callable[[int], None], left: Callable[[], int]
    ):
        self._program, self._redis, self._submit, self._left = program, client, submit, left

    def run(self, count: int) -> dict[str, float]:
        """Jobs per second, and what one of them cost: milliseconds of the worker, of Redis and of this process."""
        server = self._redis.info("server")["process_id"]
        roles = {"worker": tree(self._program.pid), "redis": {server}, "submit": {os.getpid()}}
        before = {role: cpu_seconds(pids) for role, pids in roles.items()}
        began = time.perf_counter()
        self._submit(count)
        submitted = time.perf_counter() - began
        self._await_none()
        seconds = time.perf_counter() - began
        cost = {
            f"{role}_ms": round((cpu_seconds(pids) - before[role]) * 1000 / count, 3)
            for role, pids in roles.items()
        }
        return {"rate": round(count / seconds, 1), "submitted_s": round(submitted, 3), **cost}

    def _await_none(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while left := self._left():
            if self._program.ended or time.monotonic() > deadline:
                raise Broken(f"{left} jobs were not run: {self._program.last_words()}")
            time.sleep(0.01)


@contextlib.contextmanager
def _celery() -> Iterator[Side]:
    with own_redis() as settings, _program(settings, _celery_argv()) as (program, client):
        os.environ["PLAIN_BROKER"] = _broker(settings)
        from benchmarks.plain_celery import app, noop  # noqa: PLC0415 - it reads the broker's address

        def submit(count: int) -> None:
            for _ in range(count):
                noop.delay(BODY)

        # A message is acknowledged when its task begins.
        def left() -> int:
            return int(client.llen("celery")) + int(client.hlen("unacked"))

        yield Side(program, client, submit, left)
        app.close()


def _broker(settings: Settings) -> str:
    return "redis+socket://" + settings.redis_url.removeprefix("unix://")


def _celery_argv() -> list[str]:
    argv = ["-m", "celery", "-A", "benchmarks.plain_celery", "worker", "--pool", "threads"]
    return [sys.executable, *argv, "--concurrency", str(SLOTS), "--loglevel", "WARNING"]


@contextlib.contextmanager
def _inferq() -> Iterator[Side]:
    with own_redis() as bare, contextlib.ExitStack() as held:
        home = Path(tempfile.mkdtemp(prefix="inferq-bench-"))
        held.callback(shutil.rmtree, home, ignore_errors=True)
        model = {"engine": "noop", "source": "noop", "type": "chat", "slots": SLOTS}
        file = home / "config.json"
        file.write_text(
            json.dumps({"queue": bare.queue.model_dump(exclude_unset=True), "models": {MODEL: model}})
        )
        settings = load_settings(file, home=home, environ={})
        held.callback(shutil.rmtree, settings.run_dir, ignore_errors=True)
        argv = [sys.executable, "-m", "benchmarks.noop_replica", str(file), str(home), MODEL]
        program, client = held.enter_context(_program(settings, argv))
        signals = Signals(make_app(settings))
        signals.start()
        held.callback(signals.stop)
        _await_replica(settings, program)
        order = f"{settings.queue.prefix}order:{MODEL}"

        def left() -> int:
            return sum(int(value or 0) for value in client.hmget(order, "jobs", "run"))

        yield Side(program, client, lambda count: asyncio.run(_submit(settings, signals, count)), left)


@contextlib.contextmanager
def _program(settings: Settings, argv: list[str]) -> Iterator[tuple[Program, "redis.Redis"]]:
    log = Path(tempfile.mkstemp(prefix="inferq-bench-", suffix=".log")[1])
    program = Program(argv, log, environment(PLAIN_BROKER=_broker(settings)))
    client = redis.Redis.from_url(settings.redis_url)
    try:
        yield program, client
    finally:
        client.close()
        program.stop()
        log.unlink(missing_ok=True)


def _await_replica(settings: Settings, program: Program) -> None:
    async def ready() -> bool:
        connection = connect(settings, connections=2)
        found = await JobQueue(connection, settings).replicas()
        await connection.aclose()
        return any(each.state == "ready" for each in found)

    deadline = time.monotonic() + 30.0
    while not asyncio.run(ready()):
        if program.ended or time.monotonic() > deadline:
            raise Broken(f"the replica is not ready: {program.last_words()}")
        time.sleep(0.1)


async def _submit(settings: Settings, signals: Signals, count: int) -> None:
    connection = connect(settings, connections=SLOTS)
    queue = JobQueue(connection, settings)
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            spec = _spec()
            standing = await queue.accept(spec, "direct", weight=1.0)
            signals.sent(spec)
            if standing is not None and standing.bell_wanted:
                signals.ring(MODEL)

    await asyncio.gather(*(caller() for _ in range(SLOTS)))
    await connection.aclose()


def _spec() -> JobSpec:
    values: dict[str, Any] = {
        "model": MODEL,
        "endpoint": "chat/completions",
        "body": BODY.encode(),
        "units": 10.0,
    }
    return JobSpec(id=new_job_id(), created_at=time.time(), **values)
