"""Real Flower and a real Celery worker: jobs shown under their ids, lengths of queues, revoke asking for a cancel."""

import base64
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from inferq.job import Job, JobState
from queues import remote
from queues.celery_app import make_app
from queues.signals import Signals
from tests.flower.replica import MODELS
from tests.queues.builders import PREFIX, bench, settings_for, spec, until

ROOT = Path(__file__).parents[2]


class Inspector:
    """Flower's HTTP API."""

    def __init__(self, port: int, key: Path):
        self._base = f"http://127.0.0.1:{port}"
        self._key = key

    def call(self, path: str, *, method: str = "GET", password: str | None = None) -> tuple[int, str]:
        request = urllib.request.Request(
            self._base + path, method=method, data=b"" if method == "POST" else None
        )
        if password:
            request.add_header(
                "Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
            )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    def get(self, path: str) -> Any:
        status, text = self.call(path, password=self.password)
        return json.loads(text) if status == 200 else None

    @property
    def password(self) -> str:
        return self._key.read_text().strip()

    def up(self) -> bool:
        try:
            return self.call("/healthcheck")[0] == 200
        except OSError:
            return False


@contextmanager
def child(*argv: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, *argv], cwd=ROOT, env={**os.environ, **environment}) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def flower(url: str, home: Path) -> Iterator[Inspector]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = home / "config.json"
    home.mkdir()
    config.write_text(
        json.dumps({"queue": {"redis_url": url}, "models": MODELS, "monitoring": {"flower_port": port}})
    )
    with child("-m", "queues", "--flower", INFERQ_HOME=str(home), INFERQ_CONFIG=str(config)):
        inspector = Inspector(port, home / "flower.key")
        until(inspector.up, within=30)
        yield inspector


@contextmanager
def signalling(url: str) -> Iterator[Signals]:
    sender = Signals(make_app(settings_for(url, models=MODELS)), "demo@test")
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()


@pytest.mark.slow
def test_every_page_but_health_needs_the_password(redis_url: str, tmp_path: Path):
    with flower(redis_url, tmp_path / "home") as inspector:
        for path in ("/api/tasks", "/api/workers", "/broker", "/workers"):
            assert inspector.call(path)[0] == 401
            assert inspector.call(path, password="wrong")[0] == 401
            assert inspector.call(path, password=inspector.password)[0] == 200
        assert inspector.call(f"/api/task/revoke/{spec().id}", method="POST")[0] == 401


@pytest.mark.slow
def test_jobs_are_shown_under_their_ids_and_queues_with_their_lengths(redis_url: str, tmp_path: Path):
    asked = spec(tenant="team")
    with flower(redis_url, tmp_path / "home") as inspector, signalling(redis_url) as sender:

        def shown(state: str) -> Any:
            found = inspector.get(f"/api/task/info/{asked.id}")
            return found if found and found["state"] == state else None

        def sent() -> Any:
            sender.sent(asked)
            return shown("PENDING")

        task = until(sent)
        assert (task["name"], task["uuid"]) == ("demo", asked.id)
        assert "'lane': 'medium'" in task["kwargs"]
        assert asked.id in inspector.get("/api/tasks")
        sender.started(Job(spec=asked, state=JobState.RUNNING, attempt=1))
        assert until(lambda: shown("STARTED"))["worker"] == "demo@test"
        sender.ended(asked.id, "succeeded", runtime=0.5)
        assert until(lambda: shown("SUCCESS"))["runtime"] == 0.5
        sender.ring("demo")
        sender.ring("demo")

        def lengths() -> dict[str, int]:
            found = inspector.get("/api/queues/length")
            return {queue["name"]: queue["messages"] for queue in found["active_queues"]}

        until(lambda: lengths().get("bell.demo") == 2)
        assert "bell.demo" in inspector.call("/broker", password=inspector.password)[1]


@pytest.mark.slow
@pytest.mark.parametrize("terminate", [False, True])
async def test_revoke_asks_for_a_cancel(redis_url: str, tmp_path: Path, terminate: bool):
    rung = tmp_path / "rung"
    async with bench(redis_url) as b:
        asked = spec()
        await b.queue.accept(asked, "restore", generation=3)
        with (
            child("-m", "tests.flower.replica", redis_url, str(rung)),
            flower(redis_url, tmp_path / "home") as inspector,
            signalling(redis_url) as sender,
        ):
            sender.ring("demo")
            until(rung.exists, within=30)
            until(lambda: "demo@test" in (inspector.get("/api/workers?refresh=1") or {}), within=30)
            path = f"/api/task/revoke/{asked.id}" + ("?terminate=true" if terminate else "")
            assert inspector.call(path, method="POST", password=inspector.password)[0] == 200
            with redis.Redis.from_url(redis_url) as client:
                until(lambda: client.exists(f"{PREFIX}requests"))
        [request] = await remote.requests(b.redis, PREFIX)
        assert (request.kind, request.job_id, request.generation) == ("cancel", asked.id, 3)
