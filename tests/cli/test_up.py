"""`inferq up` with real processes and the engine that needs no model: start, use, restart, stop, and being killed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from inferq.client import Client
from inferq.config import Settings

from .deadline import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

ROOT = Path(__file__).parent.parent.parent
CONFIG = """
models:
  echo: {engine: noop, source: none, warm: true, options: {tokens: 3}}
"""


class Stack:
    """One `inferq up` on a home of its own, whose path has a space."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "a home"
        self.config = folder / "config.yaml"
        self.config.write_text(CONFIG)
        self.output = folder / "output"

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "inferq", "up", "--home", str(self.home), "--config", str(self.config)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*argv, "--port", "0", "--no-flower", *flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, "TERM": "dumb"},
            )
        return self.process

    def start_ready(self) -> None:
        self.start()
        eventually(self._is_ready_or_dead, seconds=90, what="the welcome")
        assert self.process.poll() is None, self.said

    @property
    def said(self) -> str:
        return self.output.read_text("utf-8", "replace")

    @property
    def client(self) -> Client:
        return Client.from_environment({"INFERQ_HOME": str(self.home)})

    def processes(self) -> list[psutil.Process]:
        """Every process with this home in its environment or command line, the one started here included.

        Redis writes its title over its environment; it is known by its socket.
        """
        mine, sockets = [], str(Settings(home=self.home).run_dir)
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                if str(self.home) in (*process.environ().values(), *words) or sockets in " ".join(words):
                    mine.append(process)
            except psutil.Error:
                continue
        return mine

    def assert_gone(self, seconds: float) -> None:
        eventually(lambda: not self.processes(), seconds=seconds, what=f"the end of {self.processes()}")

    def _is_ready_or_dead(self) -> bool:
        return "Ctrl-C stops everything" in self.said or self.process.poll() is not None


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait()
    made.assert_gone(30)


def test_starts_serves_and_stops_in_order(stack: Stack) -> None:
    stack.start_ready()
    with stack.client as client:
        reply = client.call(
            "chat/completions", {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        )
        assert reply["choices"][0]["message"]["content"] == "w0 w1 w2"
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(60) == 0
    order = re.findall(r"^  (.+) stopped \(", stack.said, re.MULTILINE)
    assert order == ["watched folders", "API", "node agent", "scheduler", "Redis (embedded)"]
    stack.assert_gone(2)
    assert not Settings(home=stack.home).run_dir.exists()


def test_curl_line_works_as_pasted(stack: Stack) -> None:
    stack.start_ready()
    shown = stack.said[stack.said.index("  curl") : stack.said.index("\nNext")]
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "w0 w1 w2"
    assert (stack.home / "admin.key").stat().st_mode & 0o777 == 0o600


def test_killed_up_leaves_nothing_and_starts_again(stack: Stack) -> None:
    stack.start_ready()
    with stack.client as client:
        job = client.submit({"model": "echo", "body": {"messages": [{"role": "user", "content": "x"}]}})
        assert list(client.wait(job["id"]))[-1]["state"] == "succeeded"
    (redis,) = (
        p
        for p in stack.processes()
        if "redis-server" in p.cmdline()[0] and "unixsocket" in " ".join(p.cmdline())
    )
    # Deaf to the request to end, so that the old stack is surely there when the new one comes.
    redis.suspend()
    stack.process.kill()
    stack.process.wait()
    stack.start_ready()
    assert "waiting for the processes of the last inferq to end" in stack.said
    with stack.client as client:
        assert client.job(job["id"])["state"] == "succeeded"


def test_killed_supervisor_ends_the_stack(stack: Stack) -> None:
    stack.start_ready()
    (supervisor,) = (p for p in stack.processes() if p.cmdline()[1:3] == ["-m", "inferq.cli.stack"])
    supervisor.kill()
    assert stack.process.wait(30) == 128 + signal.SIGKILL
    stack.assert_gone(5)


def test_dead_children_are_started_again(stack: Stack) -> None:
    stack.start_ready()
    killed = {}
    for module in ("api", "watchers"):
        (child,) = (p for p in stack.processes() if p.cmdline()[1:] == ["-m", module])
        child.kill()
        killed[module] = child.pid
    with stack.client as client:
        eventually(client.is_ready, seconds=30, what="the api again")
    eventually(
        lambda: "API runs again" in stack.said and "watched folders runs again" in stack.said, seconds=30
    )
    assert "API ended: killed by SIGKILL" in stack.said


def test_second_up_for_a_home_names_the_first(stack: Stack) -> None:
    stack.start_ready()
    first = stack.process
    other = Stack(stack.home.parent)
    other.output = stack.output.with_name("second")
    other.start()
    assert other.process.wait(30) == 6
    with stack.client as client:
        assert f"process {first.pid}, {client.url}" in other.said
    assert first.poll() is None


def test_doctor_knows_the_ports_of_this_homes_own_stack(stack: Stack, tmp_path: Path) -> None:
    stack.start_ready()
    with stack.client as client:
        port = client.url.rpartition(":")[2]
    own, other = doctor_on_ports(stack, stack.home, port), doctor_on_ports(stack, tmp_path / "other", port)
    assert own == ("ok", f"port {port} (API) is in use by this home's own stack, which runs")
    assert other[0] == "warn"
    assert f"port {port} (API) is taken by process" in other[1]


def doctor_on_ports(stack: Stack, home: Path, port: str) -> tuple[str, str]:
    argv = [
        sys.executable,
        "-m",
        "inferq",
        "doctor",
        "--json",
        "--home",
        str(home),
        "--config",
        str(stack.config),
    ]
    env = {**os.environ, "INFERQ__API__PORT": port}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=env, timeout=60, check=False)
    (found,) = (each for each in json.loads(done.stdout) if "(API)" in each["found"])
    return found["level"], found["found"]


def test_taken_port_is_one_line_that_names_it(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack.start("--port", str(port))
        assert stack.process.wait(30) == 2
    assert stack.said.startswith(f"error: port {port} (API) is taken")
    assert "choose another with --port, or INFERQ__API__PORT" in stack.said
    assert stack.said.count("\n") == 1


def test_service_that_cannot_start_ends_up_with_its_last_words(stack: Stack) -> None:
    stack.config.write_text(CONFIG + "storage: {database_url: 'sqlite:////proc/nowhere/inferq.db'}\n")
    stack.start()
    assert stack.process.wait(60) == 2
    assert "job store: exit code" in stack.said
    assert "logs/init.log" in stack.said
    stack.assert_gone(5)


def test_second_request_stops_at_once(stack: Stack) -> None:
    stack.start_ready()
    with stack.client as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "!delay=60"}]}
        job = client.submit({"model": "echo", "body": body})
        eventually(lambda: client.job(job["id"])["state"] == "running", what="the job to run")
    stack.process.send_signal(signal.SIGINT)
    eventually(lambda: "stopping" in stack.said, what="the first request")
    eventually(lambda: "API stopped" in stack.said, what="the drain of the node", seconds=40)
    stack.process.send_signal(signal.SIGINT)
    stack.process.wait(15)
    assert "killed what was left" in stack.said
    stack.assert_gone(2)
