"""A real engine process for a test: started as a replica starts it, asked over its socket, ended in any case."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from inferq.engine import Engine, Launch

START_SECONDS = 120.0


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
class RunningEngine:
    """An engine that runs. `name` is the public name of its model."""

    process: "subprocess.Popen[str]"
    address: Path
    name: str
    health_path: str = "/health"

    def client(self, timeout: float = 60.0) -> httpx2.Client:
        transport = httpx2.HTTPTransport(uds=str(self.address))
        return httpx2.Client(transport=transport, base_url="http://engine", timeout=timeout)

    def get(self, path: str) -> httpx2.Response:
        with self.client() as client:
            return client.get(path)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> httpx2.Response:
        with self.client() as client:
            return client.post(path, json=body, headers=headers)

    def health(self) -> dict[str, Any]:
        return dict(self.get(self.health_path).json())

    def ready(self) -> bool:
        assert self.process.poll() is None, f"the engine ended: {self.process.communicate()[1]}"
        return self.listens() and self.get(self.health_path).status_code == 200

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
        """Ids of the requests under way."""
        return {run["id"] for run in self.get("/runs").json()["runs"]}

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The events of a stream, each checked to be one whole `data:` line; the last is `[DONE]`."""
        with self.client() as client, client.stream("POST", path, json=body | {"stream": True}) as response:
            raw = response.read().decode()
            assert response.status_code == 200, raw
            assert response.headers["content-type"].startswith("text/event-stream")
        assert raw.endswith("\n\n")
        blocks = raw.removesuffix("\n\n").split("\n\n")
        assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
        assert blocks.pop() == "data: [DONE]"
        return [json.loads(block.removeprefix("data: ")) for block in blocks]


@contextmanager
def started(
    argv: list[str], address: Path, name: str, env: Mapping[str, str], cwd: Path | None = None
) -> Iterator[RunningEngine]:
    """A process that will be an engine, killed at the end. Nobody has waited for it yet."""
    with subprocess.Popen(argv, cwd=cwd, env=dict(env), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield RunningEngine(process, address, name)
        finally:
            process.kill()


@contextmanager
def served(
    engine: Engine,
    *,
    source: str = "none",
    name: str = "public-name",
    slots: int = 4,
    device: str = "cpu:0",
    media: Path | None = None,
    options: Mapping[str, Any] | None = None,
    python: Path | None = None,
) -> Iterator[RunningEngine]:
    """An engine by its contract alone (`inferq.engine.Engine`), ready to answer."""
    with tempfile.TemporaryDirectory(prefix="iq-") as folder:
        launch = Launch(
            model=name,
            source=source,
            socket=Path(folder) / "s",
            device=device,
            slots=slots,
            python=python or Path(sys.executable),
            media=media or Path(folder),
            options=dict(options or {}),
        )
        command = engine.command(launch)
        with started(list(command.argv), launch.socket, name, {**os.environ, **command.env}) as running:
            running.health_path = engine.health
            eventually(running.ready, "the engine is ready", START_SECONDS)
            yield running
