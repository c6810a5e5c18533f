"""The installation that is broken and healed: two api processes, two schedulers, a node with three replicas, a watcher,
and Redis behind a network of the suite's own. Everything is a real process; a supervisor starts again what died.
Other grounds have Redis behind Sentinel, PostgreSQL, disks that can be full and clocks that can jump.
"""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import psutil
import redis

from tests.chaos import plugin, proxy
from tests.chaos.clocks import Clocks, find_library
from tests.chaos.ground import POSTGRESQL, SENTINEL, Ground
from tests.chaos.mailbox import HOST, SECRET, Mailbox
from tests.chaos.postgres import Postgres
from tests.chaos.sentinels import Sentinels
from tests.disk import Disk, mount
from tests.e2e.stack import LEASE, Stack, arguments_of, free_port
from tests.e2e.waiting import until
from tests.engines.process import ROOT

APIS = ("api-1", "api-2")
SCHEDULERS = ("scheduler-1", "scheduler-2")
SERVICES = (*SCHEDULERS, *APIS, "node", "watcher")
LINKS = ("api", "scheduler", "node")
WIDE, NARROW = "wide", "narrow"
"""A model with two replicas of four slots, and one with a single slot, where jobs have to wait."""
MODELS = (WIDE, NARROW)
TENANTS = ("alice", "bob", "carol")
MODULES = {"api": "api", "scheduler": "queues", "node": "workers", "watcher": "watchers"}
RESTART_AFTER = 0.5
OWN_NAME = "chaos"
"""What the suite calls itself to Redis."""
DATABASE = Path("database") / "inferq.db"
DISK_SIZES = {"redis": "192m", "sql": "96m", "postgres": "256m"}
USUAL = Ground()


def configuration(database_url: str) -> dict[str, Any]:
    sink = {"engine": "sink", "source": "none", "type": "chat", "warm": True, "device": "cpu:0"}
    return {
        "queue": {"lease": LEASE, "max_queue_size": 500},
        "api": {"wait_timeout": 40.0},
        "processing": {"drain_timeout": 2.0, "worker_timeout": 30.0},
        "monitoring": {"flower_enabled": False},
        "storage": {"database_url": database_url, "inline_result": 2048},
        "security": {"webhook_secret": SECRET},
        "webhooks": {"allow_http": True, "allow_hosts": [HOST], "timeout": 3.0},
        "models": {WIDE: {**sink, "replicas": 2, "slots": 4}, NARROW: {**sink, "slots": 1}},
    }


class Site(Stack):
    """`folder` is the suite's: journals, logs and the installation's home lie below it."""

    replicas: ClassVar[dict[str, int]] = {WIDE: 2, NARROW: 1}

    def __init__(self, folder: Path, root: Path = ROOT, ground: Ground = USUAL) -> None:
        self.ground = ground
        self.postgres = Postgres(folder / "sql", self.launch) if ground.database == POSTGRESQL else None
        self.sentinels = Sentinels(folder / "redis", self.launch) if ground.redis == SENTINEL else None
        url = self.postgres.url if self.postgres else f"sqlite:///{DATABASE}"
        super().__init__(folder / "home", configuration(url), root)
        self.disks: dict[str, Disk] = {}
        """Those that can be full, by what lies there: redis, and sql or postgres."""
        library = find_library() if ground.clocks else None
        self.clocks = Clocks(folder / "clocks", library) if library else None
        self.folder = folder
        self.journals = folder / "journals"
        self.journals.mkdir()
        self.mailbox = Mailbox(self.journals)
        self.tokens: dict[str, str] = {}
        self.urls = {name: f"http://127.0.0.1:{free_port()}" for name in APIS}
        self.url = self.urls[APIS[0]]
        extra = plugin.install(folder / "plugin")
        self.environ |= {
            "PYTHONPATH": f"{extra}{os.pathsep}{root}",
            "CHAOS_SINK": str(self.journals / "sink.jsonl"),
        }
        self.failpoints: dict[str, str] = {}
        """What the next start of a service is armed with."""
        self.unreached: list[str] = []
        """Fail points that were armed in vain."""
        self.held: set[str] = set()
        """Services that the supervisor leaves dead."""
        self._addresses: dict[str, str] = {}
        """Where the processes of a link find Redis."""
        self._control = folder / "network"
        self._ending = threading.Event()
        self._looking = httpx2.Client(timeout=10, verify=False)
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    # Life

    def up(self) -> None:
        self._mount()
        self.mailbox.start()
        self.boot_launcher()
        if self.postgres:
            self.postgres.create()
        self._start_redis()
        self.init()
        for name in SERVICES:
            self.start(name)
        for name in APIS:
            until(lambda name=name: self.is_ready(name), f"{name} is ready")
        self.tokens = {tenant: self._make_key(tenant) for tenant in TENANTS}
        until(self.all_ready, "all replicas are ready")
        self._supervisor.start()

    def down(self) -> list[str]:
        """End everything; command lines of what was left after that."""
        self._ending.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        self._looking.close()
        self.end()
        self.mailbox.stop()
        left = [
            " ".join(arguments_of(process)) for process in psutil.process_iter() if self._is_ours(process)
        ]
        for disk in self.disks.values():
            # What is on it goes with it, and whoever looks into a red run wants it.
            shutil.copytree(disk.folder, self.folder / "disks" / disk.folder.name, dirs_exist_ok=True)
            disk.unmount()
        return left

    def _mount(self) -> None:
        for what, size in DISK_SIZES.items() if self.ground.disks else ():
            if what == "redis" and not self.sentinels:
                disk = mount(self.redis_data, size)
            elif what == "sql" and not self.postgres:
                disk = mount(self.database_file.parent, size)
            elif what == "postgres" and self.postgres:
                disk = mount(self.postgres.folder, size)
            else:
                continue
            assert disk, "may_mount() said that this user may"
            self.disks[what] = disk

    def _start_redis(self) -> None:
        """Redis, and what lies between it and the processes."""
        if self.sentinels:
            self.sentinels.start()
            self._addresses = dict.fromkeys(LINKS, self.sentinels.url)
        else:
            self.start("redis")
            self._start_network()

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return process.environ().get("INFERQ_HOME") == str(self.home)
        return False

    def start(self, component: str) -> int:
        """Start a service; armed when `failpoints` names it, once."""
        if component == "redis":
            program = [sys.executable, "-m", "queues", "--embedded-redis"]
            pid = self.pids["redis"] = self.launch(["env", *self._clock("redis"), *program], component)
            until(self.redis_answers, "Redis answers")
            return pid
        kind = component.partition("-")[0]
        argv = [sys.executable, "-m", MODULES[kind]]
        pid = self.launch(["env", *self._variables(component, kind), *argv], component)
        self.pids[component] = pid
        return pid

    def _variables(self, component: str, kind: str) -> list[str]:
        link = {"api": "api", "watcher": "api", "scheduler": "scheduler", "node": "node"}[kind]
        found = [f"INFERQ__QUEUE__REDIS_URL={self._addresses[link]}"]
        # Of a node its replicas and engines would have the clock, and engines write the suite's history.
        if kind != "node":
            found += self._clock(component)
        if kind == "api":
            found.append(f"INFERQ__API__PORT={self.urls[component].rpartition(':')[2]}")
        if component in self.failpoints:
            found.append(f"INFERQ_FAILPOINTS={self.failpoints.pop(component)}")
        return found

    def _clock(self, component: str) -> list[str]:
        return self.clocks.variables(component) if self.clocks else []

    def _supervise(self) -> None:
        """Start again what died, after a pause."""
        dead_since: dict[str, float] = {}
        while not self._ending.wait(0.1):
            for name in SERVICES:
                if name in self.held or is_alive(self.pids[name]):
                    dead_since.pop(name, None)
                elif time.monotonic() - dead_since.setdefault(name, time.monotonic()) >= RESTART_AFTER:
                    self.start(name)

    def all_logs(self) -> list[Path]:
        return [*self.logs.glob("*.log"), *(self.home / "logs").glob("*.log*")]

    # Network

    def _start_network(self) -> None:
        target = str(self.settings.run_dir / "redis.sock")
        argv = [sys.executable, str(Path(__file__).with_name("proxy.py")), target, str(self._control), *LINKS]
        self.pids["network"] = self.launch(argv, "network")
        until(self._control.exists, "the network is there")
        for link, port in zip(LINKS, self.log("network").split(), strict=True):
            self._addresses[link] = f"redis://127.0.0.1:{port}/0"

    def network(self, link: str, mode: str) -> None:
        proxy.order(self._control, link, mode)

    # Redis and SQL

    @property
    def redis_data(self) -> Path:
        return self.home / "redis"

    def redis_answers(self) -> bool:
        with self.redis() as client:
            try:
                return bool(client.ping())
            except OSError:
                return False
            except Exception as error:  # noqa: BLE001 - loading, or not there yet
                return not str(error)

    def kill_redis(self) -> None:
        self.signal("redis", signal.SIGKILL)

    def replace_redis_data(self, copy: Path | None) -> None:
        """With Redis dead: an older state of its folder, or nothing."""
        for old in self.redis_data.iterdir():  # the folder itself may be a disk
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        if copy is not None:
            shutil.copytree(copy, self.redis_data, dirs_exist_ok=True)

    @property
    def redis_ports(self) -> set[int]:
        """Where processes connect to Redis."""
        if self.sentinels:
            return set(self.sentinels.servers)
        return {int(address.rpartition(":")[2].partition("/")[0]) for address in self._addresses.values()}

    def redis_client(self, **options: Any) -> "redis.Redis":
        """A client past the broken network."""
        options["client_name"] = OWN_NAME
        if self.sentinels:
            return self.sentinels.client(**options)
        return redis.Redis.from_url(self.settings.redis_url, **options)

    @contextlib.contextmanager
    def redis(self) -> Iterator["redis.Redis"]:
        with self.redis_client(socket_timeout=10) as client:
            yield client

    @property
    def database_file(self) -> Path:
        return self.home / DATABASE

    def query(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Rows of SQL; values stand for question marks. Raises sqlite3.Error or psycopg.Error."""
        if self.postgres:
            with self.postgres.connect() as server:
                return server.execute(statement.replace("?", "%s"), values).fetchall()  # type: ignore[arg-type]
        uri = f"file:{self.database_file}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, values)]

    def hold_database(self) -> Callable[[], None]:
        """Keep every writer out; calling what is returned lets them in again."""
        if self.postgres:
            server = self.postgres.connect()
            server.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            return server.close
        writer = sqlite3.connect(
            self.database_file, timeout=10, isolation_level=None, check_same_thread=False
        )
        writer.execute("BEGIN IMMEDIATE")
        return writer.close

    # Looking

    def call(self, api: str, tenant: str, timeout: float = 45.0) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.tokens[tenant]}"}
        # Nothing here is encrypted, and reading all certificates for each client takes longer than a boot.
        return httpx2.Client(base_url=self.urls[api], headers=headers, timeout=timeout, verify=False)

    def _make_key(self, tenant: str) -> str:
        answer = self.post("/v1/keys", {"name": tenant, "role": "user", "tenant": tenant})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["key"])

    def is_ready(self, api: str) -> bool:
        try:
            return self._looking.get(f"{self.urls[api]}/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def replica_states(self) -> list[dict[str, Any]]:
        try:
            headers = {"Authorization": f"Bearer {self.key}"}
            answer = self._looking.get(f"{self.url}/v1/running_models", headers=headers)
        except httpx2.TransportError:
            return []
        return list(answer.json()) if answer.status_code == 200 else []

    def all_ready(self) -> bool:
        """Each api answers, and each replica that should be there is: alive, ready and free to work."""
        if not all(self.is_ready(name) for name in APIS):
            return False
        ready = [
            each
            for each in self.replica_states()
            if each["state"] == "ready" and not each["draining"] and psutil.pid_exists(each["pid"])
        ]
        return Counter(each["model"] for each in ready) == self.replicas

    def replicas_running(self) -> list[psutil.Process]:
        return self._found(lambda argv: "--replica" in argv)

    def find_replica(self, rng: random.Random) -> psutil.Process | None:
        return one_of(self.replicas_running(), rng)

    def find_engine(self, rng: random.Random) -> psutil.Process | None:
        return one_of(self._found(lambda argv: "--uds" in argv and "--lifeline-fd" not in argv), rng)

    def find_shim(self, rng: random.Random) -> psutil.Process | None:
        return one_of(self._found(lambda argv: "--uds" in argv and "--lifeline-fd" in argv), rng)

    def _found(self, chosen: Callable[[list[str]], bool]) -> list[psutil.Process]:
        return [p for p in psutil.process_iter() if chosen(arguments_of(p)) and self._is_ours(p)]


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def one_of(found: list[psutil.Process], rng: random.Random) -> psutil.Process | None:
    return rng.choice(sorted(found, key=lambda process: process.pid)) if found else None
