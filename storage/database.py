"""One database: opens it, runs reads and writes on it, and decides how often a transaction that lost is tried again.

It must not know jobs, keys or tables. What differs between SQLite and PostgreSQL is in `storage.sqlite` and
`storage.postgres`; work is written once, as a plain function of a connection.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from sqlalchemy import Connection, text

from inferq import errors
from storage import faults
from storage.address import locate
from storage.postgres import PostgresRunner
from storage.sqlite import SqliteRunner

log = logging.getLogger("storage")

T = TypeVar("T")

_NOTES = "inferq_notes"

PATIENCE = 10.0
"""Seconds within which a transaction is tried again that lost against another one."""
QUIET = 10.0
"""Seconds between two lines in the log about faults; while a database is away every call meets one."""


class Runner(Protocol):
    """How work reaches one kind of database without holding up the event loop."""

    dialect: str
    errors: tuple[type[BaseException], ...]
    """What the driver raises."""

    async def read(self, work: Callable[[Connection], T]) -> T: ...
    async def write(self, work: Callable[[Connection], T]) -> T: ...
    async def close(self) -> None: ...


class Database:
    """Connections to one database. `work` is a plain function of a connection.

    It may run twice, and on SQLite it runs in a thread, so it should do nothing but SQL.
    """

    def __init__(self, runner: Runner, shown: str) -> None:
        self.dialect = runner.dialect
        self._runner = runner
        self._shown = shown
        self._opened = False
        self._logged = -QUIET
        self._heard: Callable[[list[Any]], None] | None = None

    @classmethod
    async def open(cls, url: str, home: Path, *, create: bool = False) -> Self:
        """Connect; `create` makes a missing SQLite file. Raises ConfigError and StoreUnavailable."""
        address = locate(url, home)
        runner: Runner
        if address.file is None:
            runner = PostgresRunner(address.url, patient=create)
        else:
            runner = SqliteRunner(address.file, create=create)
        database = cls(runner, address.shown)
        try:
            await database.ping()
        except BaseException:
            await database.close()
            raise
        database._opened = True
        return database

    async def close(self) -> None:
        await self._runner.close()

    async def ping(self) -> None:
        """One round trip. Raises StoreUnavailable."""
        await self.read(lambda connection: connection.execute(text("SELECT 1")).close())

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads; each statement sees its own snapshot. Raises StoreUnavailable."""
        return await self._persist(lambda: self._runner.read(work))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction, committed when it returns, rolled back when it raises.

        When the caller is cancelled the transaction may still commit. Raises StoreUnavailable.
        """
        heard = self._heard
        if heard is None:
            return await self._persist(lambda: self._runner.write(work))
        noted: list[Any] = []

        def noting(connection: Connection) -> T:
            noted.clear()
            connection.info[_NOTES] = noted
            try:
                return work(connection)
            finally:
                del connection.info[_NOTES]

        answer = await self._persist(lambda: self._runner.write(noting))
        if noted:
            heard(noted)
        return answer

    def listen(self, heard: Callable[[list[Any]], None]) -> None:
        """From now on `heard` is given the notes of each transaction (`notes_of`), after its commit."""
        self._heard = heard

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await attempt()
            except self._runner.errors as error:
                if not faults.is_transient(error) or time.monotonic() >= deadline:
                    raise self._fault(error) from error
            # SQLite refuses at once, without waiting, while a crashed writer's log is recovered.
            await asyncio.sleep(random.uniform(0.002, 0.05))

    def _fault(self, error: BaseException) -> errors.StoreUnavailable:
        """Who starts the process is told which database it is; later only the log is, and no caller."""
        told = faults.translate(error, self._shown)
        if not self._opened:
            return told
        now = time.monotonic()
        if now - self._logged >= QUIET:
            self._logged = now
            log.warning("%s", told.message)
        return faults.translate(error)


def notes_of(connection: Connection) -> list[Any] | None:
    """Where work puts what is to be told once this transaction has been committed; None where nobody listens."""
    notes: list[Any] | None = connection.info.get(_NOTES)
    return notes


def exclusive(connection: Connection, name: str) -> None:
    """Until this write ends, no other process' write that asked for the same name goes on."""
    # On SQLite every write is alone already.
    if connection.dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(hashtext(:name))")
        connection.execute(lock, {"name": f"inferq:{name}"})
