"""A whole inferq of the tests' own: every process a real one, with its own home, Redis, database and port."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import redis
import yaml

from inferq import shim
from inferq.config import Settings, load_settings
from tests.e2e.waiting import until
from tests.engines.process import ROOT

TERMINAL = ("succeeded", "failed", "cancelled", "expired")
LEASE = 3.0
LAUNCHER = Path(__file__).with_name("launcher.py")
BOOT = 180.0
"""Seconds until all warm models must be ready: engines load one after the other."""


class Gone(Exception):
    """No such process, replica or engine at the moment."""


class Stack:
    """Starts, kills and asks its processes. `home` is short-lived and holds their logs."""

    def __init__(self, home: Path, config: dict[str, Any], root: Path = ROOT) -> None:
        self.home = home
        self.root = root
        """The source tree that is run."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = home.with_name("config.yaml")
        self.config.write_text(yaml.safe_dump(config))
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("INFERQ")},
            "INFERQ_HOME": str(home),
            "INFERQ_CONFIG": str(self.config),
            "INFERQ__API__PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }
        self.settings: Settings = load_settings(self.config, home=home, environ={})
        self.pids: dict[str, int] = {}
        self.logs = home.with_name("processes")
        self.logs.mkdir()
        self.key = ""
        self.first_moody = ""
        """The job of the model `moody`, sent off at the start."""
        self._lock = threading.Lock()
        self._launcher: subprocess.Popen[str] | None = None
        self._lifeline = -1

    # Life

    def boot(self, *components: str) -> None:
        """Bring up everything; returns when the API answers."""
        self.boot_launcher()
        self.start("redis")
        self.init()
        for component in components or ("scheduler", "api", "node", "watcher"):
            self.start(component)
        until(self.answers, "the API answers")

    def boot_launcher(self) -> None:
        """Start what starts everything else, and ends with this process."""
        lifeline, self._lifeline = os.pipe()
        argv = shim.wrap([sys.executable, str(LAUNCHER)], lifeline_fd=lifeline, grace=3)
        self._launcher = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.root,
            env=self.environ,
            pass_fds=(lifeline,),
        )
        os.close(lifeline)

    def init(self) -> None:
        argv = [sys.executable, "-m", "api", "--init"]
        subprocess.run(argv, cwd=self.root, env=self.environ, check=True, capture_output=True, timeout=120)
        self.key = (self.home / "admin.key").read_text().strip()

    def end(self) -> None:
        """Kill everything that this stack ever started, orphans included."""
        if self._launcher:
            assert self._launcher.stdin and self._launcher.stdout
            os.close(self._lifeline)
            self._launcher.wait(60)
            self._launcher.stdin.close()
            self._launcher.stdout.close()
        shutil.rmtree(self.settings.run_dir, ignore_errors=True)

    def start(self, component: str) -> int:
        module = {
            "redis": ["queues", "--embedded-redis"],
            "api": ["api"],
            "scheduler": ["queues"],
            "node": ["workers"],
            "watcher": ["watchers"],
        }[component]
        pid = self.pids[component] = self.launch([sys.executable, "-m", *module], component)
        return pid

    def launch(self, argv: list[str], log: str) -> int:
        """Start any program as part of the stack."""
        assert self._launcher and self._launcher.stdin and self._launcher.stdout
        with self._lock:
            order = json.dumps({"argv": argv, "log": str(self.logs / f"{log}.log")})
            self._launcher.stdin.write(order + "\n")
            self._launcher.stdin.flush()
            return int(self._launcher.stdout.readline())

    def signal(self, component: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a process of ours and wait until it is gone."""
        pid = self.pids[component]
        os.kill(pid, number)
        until(lambda: not psutil.pid_exists(pid), f"{component} ends after {number.name}")

    def log(self, component: str) -> str:
        file = self.logs / f"{component}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    # HTTP

    def http(self, **headers: str) -> httpx2.Client:
        return httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"} | headers, timeout=60
        )

    def get(self, path: str, **more: Any) -> httpx2.Response:
        with self.http() as client:
            return client.get(path, **more)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        with self.http(**{name.replace("_", "-"): value for name, value in headers.items()}) as client:
            return client.post(path, json=body)

    def openai(self, **more: Any) -> openai.OpenAI:
        usual: dict[str, Any] = {"base_url": f"{self.url}/v1", "max_retries": 0, "timeout": 90}
        return openai.OpenAI(api_key=self.key, **(usual | more))

    def answers(self) -> bool:
        try:
            return self.get("/health").status_code == 200
        except httpx2.TransportError:
            return False

    # Jobs

    def submit(self, model: str, text: str = "hello", **more: Any) -> str:
        """The id of a durable chat job."""
        body = {"messages": [{"role": "user", "content": text}], **more.pop("body", {})}
        response = self.post("/v1/jobs", {"model": model, "body": body, **more})
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        response = self.get(f"/v1/jobs/{job_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def ended(self, job_id: str, within: float = 60.0) -> dict[str, Any]:
        """The job when it has reached its end."""

        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in TERMINAL else None

        found = until(look, f"job {job_id} ends", within)
        assert found is not None
        return found

    def reaches(self, job_id: str, state: str, within: float = 60.0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] == state else None

        found = until(look, f"job {job_id} is {state}", within)
        assert found is not None
        return found

    def rows(self, job_id: str) -> list[dict[str, Any]]:
        """What SQL holds of a job."""
        uri = f"file:{self.home / 'inferq.db'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchall()
            return [dict(row) for row in found]

    # Replicas and engines

    @contextmanager
    def redis(self) -> Iterator["redis.Redis"]:
        client = redis.Redis.from_url(self.settings.redis_url)
        try:
            yield client
        finally:
            client.close()

    def replicas(self) -> dict[str, dict[str, Any]]:
        """What `GET /v1/running_models` says, by model."""
        response = self.get("/v1/running_models")
        if response.status_code != 200:
            return {}
        return {each["model"]: each for each in response.json()}

    def ready(self, model: str) -> dict[str, Any] | None:
        replica = self.replicas().get(model)
        alive = replica and replica["state"] == "ready" and psutil.pid_exists(replica["pid"])
        return replica if alive else None

    def until_ready(self, *models: str, within: float = BOOT) -> None:
        until(lambda: all(self.ready(model) for model in models), f"{', '.join(models)} are ready", within)

    def replica(self, model: str) -> psutil.Process:
        """The replica's process, by its command line: it need not be ready, nor shown anywhere."""
        for process in psutil.process_iter():
            argv = arguments_of(process)
            if "--replica" in argv and str(self.home) in argv and argv[argv.index("--model") + 1] == model:
                return process
        raise Gone(f"no replica of {model}")

    def engine(self, model: str) -> psutil.Process:
        """The engine itself, below its shim."""
        for process in self.replica(model).children(recursive=True):
            argv = arguments_of(process)
            if "--uds" in argv and "--lifeline-fd" not in argv:
                return process
        raise Gone(f"no engine of {model}")

    def engine_health(self, model: str) -> dict[str, Any]:
        """What the engine says of itself, asked directly."""
        argv = arguments_of(self.engine(model))
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(argv[argv.index("--uds") + 1])
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
            with connection.makefile("rb") as answer:
                return dict(json.loads(answer.read().partition(b"\r\n\r\n")[2]))


def attempt(look: Callable[[], Any]) -> Any:
    """The answer of `look`, or None where what it looks for is not there."""
    try:
        return look()
    except (Gone, psutil.Error, OSError, ValueError, httpx2.TransportError):
        return None


def arguments_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def chat(text: str, model: str, **more: Any) -> dict[str, Any]:
    """A chat body."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}
