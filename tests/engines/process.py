"""Starting a real engine process for a test, talking to it, and waiting for what it shows."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

ROOT = Path(__file__).parents[2]
ENGINES_PYTHON = Path(os.environ.get("INFERQ_ENGINES_PYTHON", ROOT / ".venv-engines" / "bin" / "python"))
MODELS = Path(os.environ.get("INFERQ_TEST_MODELS", ROOT / ".cache" / "models"))
START_S = 90.0
LIGHT = ("noop", "remote", "comfyui")  # run under the gateway's Python
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def engines_python() -> str:
    """The interpreter that has torch. Missing, it fails a CI run and skips any other."""
    if not ENGINES_PYTHON.exists():
        reason = f"no engine environment at {ENGINES_PYTHON} (see INFERQ_ENGINES_PYTHON)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return str(ENGINES_PYTHON)


def eventually(look: Callable[[], Any], what: str, within: float = 10.0) -> Any:
    """The first truthy value of `look`, asked again and again until the deadline."""
    deadline = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.01)


@dataclass
class EngineProcess:
    """A running engine."""

    process: subprocess.Popen[str]
    address: Path
    name: str

    def client(self, timeout: float = 60.0) -> httpx2.Client:
        return httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(self.address)), base_url="http://engine", timeout=timeout
        )

    def get(self, path: str) -> httpx2.Response:
        with self.client() as client:
            return client.get(path)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> httpx2.Response:
        with self.client() as client:
            return client.post(path, json=body, headers=headers)

    def health(self) -> dict[str, Any]:
        return dict(self.get("/health").json())

    def ready(self) -> bool:
        assert self.process.poll() is None, f"the engine ended: {self.process.communicate()[1]}"
        return self.listens() and self.get("/health").status_code == 200

    def listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.address)) == 0

    @contextmanager
    def sent(self, path: str, body: dict[str, Any], name: str) -> Iterator[socket.socket]:
        """A request that was sent and whose answer nobody has read; leaving the block closes the connection."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: engine\r\nx-request-id: {name}\r\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.address))
            connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
            yield connection

    def running(self) -> set[str]:
        return {run["id"] for run in self.get("/runs").json()["runs"]}

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The events of a stream, each checked to be one whole `data:` line; the last is `[DONE]`."""
        blocks = self.blocks(path, body)
        assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
        return [json.loads(block.removeprefix("data: ")) for block in blocks]

    def events_named(self, path: str, body: dict[str, Any]) -> list[Any]:
        """As `events`, where each has a line with its name before it, which its `type` repeats."""
        found = []
        for block in self.blocks(path, body):
            name, data = block.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
        return found

    def blocks(self, path: str, body: dict[str, Any]) -> list[str]:
        """The events of a stream as they came, without the `[DONE]` that ends it."""
        with self.client() as client, client.stream("POST", path, json=body | {"stream": True}) as response:
            raw = response.read().decode()
            assert response.status_code == 200, raw
            assert response.headers["content-type"].startswith("text/event-stream")
        assert raw.endswith("\n\n")
        blocks = raw.removesuffix("\n\n").split("\n\n")
        assert blocks.pop() == "data: [DONE]"
        return blocks


@contextmanager
def spawn(
    module: str,
    folder: Path,
    model: str = "none",
    *,
    options: dict[str, Any] | None = None,
    slots: int = 4,
    media: Path | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[EngineProcess]:
    """Start an engine without waiting for it; end it in any case."""
    name, address = f"public-{module}", folder / f"{module}-{os.urandom(3).hex()}.sock"
    python = sys.executable if module in LIGHT else engines_python()
    argv = [python, "-m", f"workers.engines.{module}", "--model", model, "--served-name", name]
    argv += ["--uds", str(address), "--slots", str(slots), "--options", json.dumps(options or {})]
    argv += [] if media is None else ["--media", str(media)]
    everything = ENVIRONMENT | (env or {})
    with subprocess.Popen(argv, cwd=ROOT, env=everything, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield EngineProcess(process, address, name)
        finally:
            process.kill()


@contextmanager
def over_tcp(module: str, name: str) -> Iterator[str]:
    """An engine that needs no model, on a port of its own; the address it answers at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", f"workers.engines.{module}", "--model", "none", "--served-name", name]
    with subprocess.Popen([*argv, "--port", str(port)], cwd=ROOT, env=ENVIRONMENT) as process:
        try:
            eventually(lambda: answers(f"http://127.0.0.1:{port}/health"), f"{module} ready", START_S)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


@contextmanager
def running(module: str, folder: Path, model: str = "none", **kwargs: Any) -> Iterator[EngineProcess]:
    """Start an engine and wait until it is ready."""
    with spawn(module, folder, model, **kwargs) as engine:
        eventually(engine.ready, f"{module} ready", START_S)
        yield engine


def demo_model(name: str) -> Path:
    """A demo model, built on first use."""
    argv = [engines_python(), "-m", "workers.engines.demo", "--out", str(MODELS), "--only", name]
    subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    return MODELS / name


def library(name: str, model: Path, question: Any) -> Any:
    """What the library itself answers; see tests/engines/library.py."""
    argv = [engines_python(), "-m", "tests.engines.library", name, str(model)]
    answer = subprocess.run(
        argv,
        cwd=ROOT,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
        input=json.dumps(question),
    )
    return json.loads(answer.stdout.splitlines()[-1])
