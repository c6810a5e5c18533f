"""Redis behind Sentinel: addresses, and a failover in the middle of the work, with real servers on loopback."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from inferq import errors
from inferq.config.redis_url import SentinelAddress, checked, sentinel_of
from inferq.job import JobState
from queues import embedded
from queues.celery_app import make_app
from queues.connection import connect, connect_sync
from queues.queue import JobQueue
from tests.queues.builders import eventually, settings_for, spec, until

MASTER = "main"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Trio:
    """A primary, its copy, and one sentinel that is enough to decide."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.primary, self.copy, self.sentinel = free_port(), free_port(), free_port()
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.url = f"sentinel://127.0.0.1:{self.sentinel}/0?master={MASTER}"

    def start(self) -> None:
        self._server(self.primary)
        self._server(self.copy, "--replicaof", "127.0.0.1", str(self.primary))
        file = self._folder / "sentinel.conf"
        file.write_text(
            f"port {self.sentinel}\ndir {self._folder}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {self.primary} 1\n"
            f"sentinel down-after-milliseconds {MASTER} 500\n"
            f"sentinel failover-timeout {MASTER} 3000\n"
        )
        self._run(self.sentinel, str(file), "--sentinel")
        with redis.Redis(port=self.sentinel) as asked:
            until(lambda: asked.sentinel_slaves(MASTER))

    def kill(self, port: int) -> None:
        self.processes[port].kill()
        self.processes[port].wait()

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _server(self, port: int, *extra: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir()
        self._run(
            port,
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""),
            *("--repl-diskless-sync-delay", "0", *extra),
        )

    def _run(self, port: int, *arguments: str) -> None:
        argv = [str(embedded.find_server()), *arguments]
        with (self._folder / f"{port}.log").open("wb") as log:
            self.processes[port] = subprocess.Popen(argv, stdout=log, stderr=log)
        until(lambda: answers(port))


def answers(port: int) -> bool:
    with redis.Redis(port=port) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    with ExitStack() as held:
        made = Trio(tmp_path)
        held.callback(made.end)
        made.start()
        yield made


async def test_the_queue_goes_on_with_the_new_primary(trio: Trio):
    settings = settings_for(trio.url)
    client = connect(settings, connections=4)
    queue = JobQueue(client, settings)
    before = spec()
    await queue.accept(before, "direct")
    with redis.Redis(port=trio.copy) as copy:
        until(lambda: copy.exists(f"inferq:job:{before.id}"))
    trio.kill(trio.primary)

    async def accepted() -> bool:
        try:
            return await queue.accept(spec(), "direct") is not None
        except errors.QueueUnavailable:
            return False

    await eventually(accepted, within=30)
    assert (await queue.get(before.id)).state is JobState.QUEUED
    plain = connect_sync(settings, patience=2.0, name="test")
    assert plain.info("server")["tcp_port"] == trio.copy
    plain.connection_pool.sentinel_manager.close()
    plain.close()
    await client.aclose()


def test_celery_finds_the_primary(trio: Trio):
    app = make_app(settings_for(trio.url))
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
        connection.default_channel.client.ping()
        assert connection.default_channel.client.info("server")["tcp_port"] == trio.primary


def test_an_address_is_taken_apart():
    found = sentinel_of("sentinel://me:p%40ss@a,b:7,[::1]:8/3?master=main&sentinel_password=s")
    assert found == SentinelAddress(
        hosts=(("a", 26379), ("b", 7), ("::1", 8)),
        master="main",
        db=3,
        username="me",
        password="p@ss",
        sentinel_password="s",
    )
    assert found.celery_url.split(";")[1] == "sentinel://me:p%40ss@b:7/3"
    assert sentinel_of("redis://a:1/0") is None


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://a:1/0",
        "sentinel://?master=m",
        "sentinel://a:x?master=m",
        "sentinel://a,?master=m",
        "sentinel://a/x?master=m",
        "sentinel://a?master=m&wrong=1",
        "http://a",
    ],
)
def test_a_bad_address_is_refused(url: str):
    with pytest.raises(ValueError, match=r"sentinel://"):
        checked(url)
