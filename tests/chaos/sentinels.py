"""Redis behind Sentinel, as a site's own: a primary, its copy, and three sentinels of which two decide.

It starts servers and tells who is the primary. Processes are the site's: it launches, and ends them with itself.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from redis.sentinel import Sentinel

from queues import embedded
from tests.e2e.stack import free_port
from tests.e2e.waiting import until

NAME = "main"
DOWN_AFTER = 1.0
"""Seconds of silence after which a sentinel takes the primary for dead."""
FAILOVER_TIMEOUT = 4.0


class Sentinels:
    """All five servers, by their ports."""

    def __init__(self, folder: Path, launch: Callable[[list[str], str], int]) -> None:
        self._folder = folder
        self._launch = launch
        self.servers = (free_port(), free_port())
        self.sentinels = (free_port(), free_port(), free_port())
        self.pids: dict[int, int] = {}
        places = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        self.url = f"sentinel://{places}/0?master={NAME}"

    def start(self) -> None:
        """Everything, from nothing; returns when a failover would succeed."""
        self._folder.mkdir()
        first, second = self.servers
        self._configure_server(first)
        self._configure_server(second, f"replicaof 127.0.0.1 {first}")
        for port in self.sentinels:
            self._configure_sentinel(port, first)
        for port in (*self.servers, *self.sentinels):
            self.start_one(port)
        until(self.is_whole, "Redis and its copy are known to all sentinels")

    def start_one(self, port: int) -> None:
        """Start a server or a sentinel on what it wrote down; returns when it answers."""
        argv = [str(embedded.find_server()), str(self._file(port))]
        kind = "sentinel" if port in self.sentinels else "redis"
        self.pids[port] = self._launch(
            [*argv, "--sentinel"] if kind == "sentinel" else argv, f"{kind}-{port}"
        )
        until(lambda: _ask(port, lambda client: client.ping()), f"{kind} {port} answers")

    def primary(self) -> int:
        """The port of the primary, as the sentinels say; 0 while they know of none that lives."""
        try:
            return int(self._manager().discover_master(NAME)[1])
        except redis.RedisError:
            return 0

    def client(self, **options: Any) -> "redis.Redis":
        """A client of whoever is the primary when it connects."""
        return self._manager().master_for(NAME, **options)

    def fail_over(self) -> None:
        """Ask a sentinel to make the copy the primary."""
        _ask(self.sentinels[0], lambda client: client.execute_command("SENTINEL", "FAILOVER", NAME))

    def is_whole(self) -> bool:
        """All sentinels name the same primary, know of each other, and its copy follows it."""
        primary = self.primary()
        seen = [_ask(port, lambda client: client.sentinel_master(NAME)) for port in self.sentinels]
        if not all(
            each
            and each["port"] == primary
            and each["num-slaves"] == 1
            and each["num-other-sentinels"] == 2
            and not each["is_odown"]
            for each in seen
        ):
            return False
        told = _ask(primary, lambda client: client.info("replication"))
        copy = sum(self.servers) - primary
        return bool(
            told
            and told["role"] == "master"
            and told["connected_slaves"] == 1
            and told["slave0"]["port"] == copy
            and told["slave0"]["state"] == "online"
        )

    def _manager(self) -> Sentinel:
        places = [("127.0.0.1", port) for port in self.sentinels]
        return Sentinel(places, socket_timeout=2, sentinel_kwargs={"socket_timeout": 2})

    def _file(self, port: int) -> Path:
        return self._folder / f"{port}.conf"

    def _configure_server(self, port: int, *more: str) -> None:
        data = self._folder / str(port)
        data.mkdir()
        lines = (
            f"port {port}", "bind 127.0.0.1", f"dir {data}", "appendonly yes", "appendfsync everysec", 'save ""',
            "maxmemory-policy noeviction", "repl-diskless-sync-delay 0", "repl-timeout 5", *more,
        )  # fmt: skip
        self._file(port).write_text("\n".join(lines) + "\n")

    def _configure_sentinel(self, port: int, primary: int) -> None:
        data = self._folder / str(port)
        data.mkdir()
        lines = (
            f"port {port}", "bind 127.0.0.1", f"dir {data}", f"sentinel monitor {NAME} 127.0.0.1 {primary} 2",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER * 1000:.0f}",
            f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT * 1000:.0f}",
        )  # fmt: skip
        self._file(port).write_text("\n".join(lines) + "\n")


def _ask(port: int, question: Callable[["redis.Redis"], Any]) -> Any:
    """The answer of one server; None when it is away."""
    with redis.Redis(port=port, socket_timeout=2, retry=None) as client:
        try:
            return question(client)
        except redis.RedisError:
            return None
