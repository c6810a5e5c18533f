"""Work on a SQLite file: in threads, one trip per transaction, one writer at a time.

It must not know tables. Within the process writes go through one thread, first come, first served; between processes
BEGIN IMMEDIATE and the busy time-out see to it. An asyncio driver would make the same trip to a thread for every
statement, fetch and close, which cost four times the processor time (measured).
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from inferq import errors
from storage import faults
from storage.texts import dump_json

T = TypeVar("T")

BUSY_TIMEOUT = 10.0
"""Seconds that a write waits for those of other processes, and for its turn."""
READERS = 4

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    # Full: a commit is on the disk before it returns. That is what an accepted job means.
    "PRAGMA synchronous=FULL",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-16384",
    # After a burst the log is cut back to this size instead of keeping its largest.
    "PRAGMA journal_size_limit=67108864",
)


class SqliteRunner:
    """Runs work on one file. Raises StoreUnavailable when the file is missing (and not to be made) or unusable."""

    dialect = "sqlite"
    errors: tuple[type[BaseException], ...] = (SQLAlchemyError, OSError)

    def __init__(self, file: Path, *, create: bool) -> None:
        _prepare(file, create=create)
        self.engine = create_engine(
            URL.create("sqlite", database=str(file)),
            # None: the driver sends no BEGIN of its own; ours is below.
            connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None},
            pool_size=READERS + 1, max_overflow=0, json_serializer=dump_json,
        )  # fmt: skip
        event.listen(self.engine, "connect", _set_pragmas)
        event.listen(self.engine, "begin", _begin_immediate)
        self._for_writing = self.engine.execution_options(inferq_write=True)
        self._readers = ThreadPoolExecutor(READERS, "sqlite-read")
        self._writer = ThreadPoolExecutor(1, "sqlite-write")

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        until = time.monotonic() + BUSY_TIMEOUT
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._write, work, until)

    async def close(self) -> None:
        """Waits for what is running."""
        await asyncio.to_thread(self._close)

    def _read(self, work: Callable[[Connection], T]) -> T:
        # No BEGIN is sent: each SELECT is a short snapshot of its own.
        with self.engine.connect() as connection:
            return work(connection)

    def _write(self, work: Callable[[Connection], T], until: float) -> T:
        if time.monotonic() > until:  # those before it have waited in vain, one after the other
            raise errors.StoreUnavailable(faults.LOCKED)
        with self._for_writing.begin() as connection:
            return work(connection)

    def _close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self.engine.dispose()


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in _PRAGMAS:
        connection.execute(pragma).close()


def _begin_immediate(connection: Connection) -> None:
    # Immediate: a transaction that reads first and writes later could not wait for another writer, only fail.
    if connection.get_execution_options().get("inferq_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare(file: Path, *, create: bool) -> None:
    """Make the file (owner only), or refuse a missing one, which SQLite would make and leave empty."""
    try:
        if create:
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        elif not file.exists():
            raise errors.StoreUnavailable(f"there is no database at {file}: {faults.INIT}")
    except OSError as error:
        raise faults.translate(error, str(file)) from error
