"""A PostgreSQL server of a site's own, on a port of loopback. It refuses to run as root, so root lends it away.

Durability is on as far as a killed process can tell: nothing here takes the machine's power.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from tests.e2e.stack import free_port
from tests.e2e.waiting import until

USER = "inferq"


class Postgres:
    """Started by `start`, stopped and started again by faults."""

    def __init__(self, folder: Path, launch: Callable[[list[str], str], int]) -> None:
        self.folder = folder
        self._launch = launch
        self._programs = find_programs()
        self._data = folder / "data"
        self.pid = 0
        self.port = free_port()
        self.url = f"postgresql+asyncpg://{USER}@127.0.0.1:{self.port}/{USER}"

    def create(self) -> None:
        """A new cluster with an empty database, running."""
        self.folder.mkdir(exist_ok=True)  # or a disk of its own
        self.folder.parent.chmod(0o711)  # whoever runs the server has to get through
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        options = ("--username", USER, "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync")
        argv = [str(self._programs / "initdb"), "--pgdata", str(self._data), *options]
        subprocess.run(lent(argv), cwd="/", check=True, capture_output=True, timeout=120)
        self.start()
        with self.connect("postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {USER}")

    def start(self) -> None:
        """Returns when it answers."""
        place = ("-k", "", "-c", "listen_addresses=127.0.0.1", "-p", str(self.port))
        options = (*place, "-c", "max_connections=200", "-c", "max_wal_size=64MB")
        argv = [str(self._programs / "postgres"), "-D", str(self._data), *options]
        self.pid = self._launch(lent(argv), "postgres")
        until(self.answers, "PostgreSQL answers")

    def stop(self) -> None:
        """As an update does it: connections are broken off, what was committed is written down."""
        os.kill(self.pid, signal.SIGINT)
        until(lambda: not psutil.pid_exists(self.pid), "PostgreSQL ends")

    def kill(self) -> None:
        """All its processes at once; it recovers from its log when it is started again."""
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.pid)
            found = [server, *server.children(recursive=True)]
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(found, timeout=10)

    def answers(self) -> bool:
        try:
            with self.connect("postgres") as connection:
                return connection.execute("SELECT 1").fetchone() is not None
        except psycopg.Error:
            return False

    def connect(self, database: str = USER, **more: Any) -> "psycopg.Connection[dict[str, Any]]":
        """A connection whose JSON stays text, as SQLite's does."""
        made = psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            dbname=database,
            connect_timeout=10,
            row_factory=dict_row,
            **more,
        )
        set_json_loads(lambda text: text if isinstance(text, str) else bytes(text).decode(), made)
        return made


def find_programs() -> Path:
    """The folder of the server's programs, the newest where there are several. Raises LookupError with advice."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[4]))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        raise LookupError("no PostgreSQL server here: install it (Debian: postgresql), or run without it")
    return found[-1].parent if found else Path(str(on_path)).parent


def lent(argv: list[str]) -> list[str]:
    """The command line, as the user whom Debian makes for it when this is root."""
    if os.geteuid() != 0:
        return argv
    pwd.getpwnam("postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *argv]
