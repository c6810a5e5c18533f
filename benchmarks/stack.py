"""A whole inferq of a benchmark's own: fresh home, own port, own Redis; each program a child that cannot outlive us.

Every program runs under the shim, whose lifeline is a pipe from this process: however this process ends, so do they.
"""

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.http1 import Target
from benchmarks.processes import command, tree
from inferq import shim
from inferq.config import Settings, load_settings
from inferq.shim import descendants

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / ".cache" / "models"
ENGINES_PYTHON = Path(os.environ.get("INFERQ_ENGINES_PYTHON", ROOT / ".venv-engines" / "bin" / "python"))
VLLM_PYTHON = Path(os.environ.get("INFERQ_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
LOAD_SECONDS = 600.0
GRACE = 15.0
STOP_ORDER = ("watchers", "api", "node", "scheduler", "redis")
PROGRAMS = {
    "api": ("api",),
    "scheduler": ("queues",),
    "watchers": ("watchers",),
    "node": ("workers",),
}

T = TypeVar("T")


class Broken(Exception):
    """A stack, an engine or a load did not do what the benchmark needs; the message says what."""


def say(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def environment(**more: str) -> dict[str, str]:
    """Ours without the settings of somebody's own inferq."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")}
    return {**clean, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", **more}


def model_folder(name: str) -> Path:
    """A small model of the real format, built on first use."""
    if not ENGINES_PYTHON.exists():
        raise Broken(f"no {ENGINES_PYTHON}; run scripts/install-engines")
    argv = [str(ENGINES_PYTHON), "-m", "workers.engines.demo", "--out", str(MODELS), "--only", name]
    done = subprocess.run(argv, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, check=False, timeout=600)
    if done.returncode:
        raise Broken(f"the model {name} could not be built")
    return MODELS / name


class Program:
    """One program under the shim, its output in a file."""

    def __init__(self, argv: list[str], log: Path, env: Mapping[str, str]) -> None:
        lifeline, self._lifeline = os.pipe()
        status, writer = os.pipe()
        self.log = log
        with log.open("wb") as output:
            self._shim = subprocess.Popen(
                shim.wrap(argv, lifeline_fd=lifeline, grace=GRACE, status_fd=writer),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env),
                cwd=ROOT,
                pass_fds=(lifeline, writer),
            )
        os.close(lifeline)
        os.close(writer)
        with os.fdopen(status) as lines:
            self.pid = int(lines.readline().removeprefix("pid ") or 0)

    @property
    def ended(self) -> bool:
        return self._shim.poll() is not None

    def stop(self) -> None:
        """Ask it to end, and wait until nothing of it is left."""
        if not self.ended:
            self._shim.terminate()
        try:
            self._shim.wait(GRACE + 5.0)
        except subprocess.TimeoutExpired:
            self._shim.terminate()  # a second signal ends the shim's patience
            self._shim.wait(10.0)
        os.close(self._lifeline)

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]


class Stack:
    """A running inferq with the given models. Use `running`."""

    def __init__(self, models: Mapping[str, Any], sections: Mapping[str, Any] | None = None) -> None:
        self._sections = sections or {}
        self.home = Path(tempfile.mkdtemp(prefix="inferq-bench-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._models = models
        self._programs: dict[str, Program] = {}
        config = self.home / "config.json"
        config.write_text(json.dumps(self._tree()))
        self.env = environment(INFERQ_HOME=str(self.home), INFERQ_CONFIG=str(config))
        self.settings: Settings = load_settings(config, home=self.home, environ={})
        self._key = ""

    def _tree(self) -> dict[str, Any]:
        ours = {"python": str(ENGINES_PYTHON)}
        return {
            "api": {"port": self.port},
            "monitoring": {"flower_enabled": False},
            "processing": {"drain_timeout": 2},
            "engines": {
                **dict.fromkeys(("text", "embed", "asr", "image", "speech"), ours),
                "vllm": {"python": str(VLLM_PYTHON)},
            },
            "models": {name: {"warm": True, **model} for name, model in self._models.items()},
            **self._sections,
        }

    def start(self) -> None:
        """Returns when every model is ready. Raises Broken."""
        self._start("redis", "queues", "--embedded-redis")
        self._until(self._redis_answers, "Redis", 20.0)
        argv = [sys.executable, "-m", "api", "--init"]
        subprocess.run(argv, cwd=ROOT, env=self.env, check=True, stdout=subprocess.DEVNULL, timeout=60)
        self._key = (self.home / "admin.key").read_text().strip()
        for name, arguments in PROGRAMS.items():
            self._start(name, *arguments)
        self._until(self._models_ready, f"models {', '.join(self._models)}", LOAD_SECONDS)

    def stop(self) -> None:
        for name in STOP_ORDER:
            if name in self._programs:
                self._programs.pop(name).stop()
        shutil.rmtree(self.settings.run_dir, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def through(self, path: str) -> Target:
        """The gateway, for a client that has a key."""
        return Target(f"127.0.0.1:{self.port}", path, {"authorization": f"Bearer {self._key}"})

    def direct(self, path: str) -> Target:
        """The engine itself: the very process that the replica speaks to."""
        found = list(self.settings.run_dir.glob("e-*/s"))
        if len(found) != 1:
            raise Broken(f"expected one engine's socket under {self.settings.run_dir}, found {len(found)}")
        return Target(f"unix:{found[0]}", path, {})

    def roles(self) -> dict[str, set[int]]:
        """Process ids by role; `engine` is all that a replica has started."""
        roles = {name: {program.pid} for name, program in self._programs.items()}
        below = descendants(self._programs["node"].pid)
        roles["replica"] = {pid for pid in below if "--replica" in command(pid)}
        roles["engine"] = {each for pid in roles["replica"] for each in tree(pid)} - roles["replica"]
        return roles

    def get(self, path: str) -> Any:
        return self._ask(path, None, self._key)

    def post(self, path: str, body: Any, *, key: str = "") -> Any:
        """The answer to a caller with this key, the administrator's by default. Raises Broken when it is an error."""
        try:
            return self._ask(path, json.dumps(body).encode(), key or self._key)
        except urllib.error.HTTPError as error:
            raise Broken(f"POST {path}: {error.code} {error.read()[:500]!r}") from error

    def _ask(self, path: str, body: bytes | None, key: str) -> Any:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What the ledger answers."""
        uri = f"file:{self.home / 'inferq.db'}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
            return connection.execute(statement, values).fetchall()

    def _start(self, name: str, *arguments: str) -> None:
        argv = [sys.executable, "-m", *arguments]
        self._programs[name] = Program(argv, self.home / f"{name}.log", self.env)

    def _until(self, question: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not question():
            for name, program in self._programs.items():
                if program.ended:
                    raise Broken(f"{name} ended: {program.last_words()}")
            if time.monotonic() > deadline:
                raise Broken(f"not ready after {seconds:.0f} s: {what}")
            time.sleep(0.1)

    def redis(self, line: str) -> bytes:
        """What the stack's Redis answers to one line. Raises OSError."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2.0)
            connection.connect(str(self.settings.run_dir / "redis.sock"))
            connection.sendall(f"{line}\r\nQUIT\r\n".encode())
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)

    def _redis_answers(self) -> bool:
        try:
            return self.redis("PING").startswith(b"+PONG")
        except OSError:
            return False

    def _models_ready(self) -> bool:
        try:
            replicas = self.get("/v1/running_models")
        except (urllib.error.URLError, OSError):
            return False
        failed = [f"{each['name']}: {each.get('error')}" for each in replicas if each["state"] == "failed"]
        if failed:
            raise Broken("; ".join(failed))
        return len([each for each in replicas if each["state"] == "ready"]) == len(self._models)


@contextlib.contextmanager
def running(models: Mapping[str, Any], sections: Mapping[str, Any] | None = None) -> Iterator[Stack]:
    """A stack while the block runs, and nothing of it afterwards. `sections` of the configuration are its own."""
    stack = Stack(models, sections)
    try:
        began = time.monotonic()
        stack.start()
        say(f"  stack with {', '.join(models)} is up after {time.monotonic() - began:.0f} s")
        yield stack
    finally:
        stack.stop()


def load(plan: Mapping[str, Any], *, timeout: float = 300.0) -> dict[str, Any]:
    """Run the load program. Raises Broken when one of its requests failed."""
    argv = [sys.executable, "-m", "benchmarks.load"]
    done = subprocess.run(
        argv, input=json.dumps(plan).encode(), stdout=subprocess.PIPE, cwd=ROOT, timeout=timeout, check=False
    )
    if done.returncode:
        raise Broken("the load program failed; see above")
    figures: dict[str, Any] = json.loads(done.stdout)
    if figures["errors"]:
        raise Broken(f"{figures['errors']} requests failed, for instance: {figures['error']}")
    return figures
