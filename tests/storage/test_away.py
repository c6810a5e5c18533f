"""The database away, locked, full or broken: one kind of error, one clear line, and no harm afterwards."""

import asyncio
import errno
import re
import sqlite3
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from inferq import errors
from storage import database as database_module
from storage import sqlite
from storage.database import Database
from storage.keys import KeyStore
from storage.ledger import Ledger
from tests.storage.builders import event, spec

only_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
only_postgres = pytest.mark.parametrize(
    "backend", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True
)


def assert_one_line(message: str) -> None:
    assert message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///missing.db", "there is no database at"),
        ("sqlite:///folder", "unable to open"),
        ("sqlite:///text.db", "not a database"),
        ("postgresql://user:secret@127.0.0.1:1/inferq", "127.0.0.1:1/inferq"),
        ("postgresql://user:secret@nowhere.invalid/inferq", "nowhere.invalid:5432/inferq"),
    ],
)
async def test_opening_what_is_not_there(home: Path, url: str, says: str):
    (home / "folder").mkdir()
    (home / "text.db").write_text("something else entirely, and long enough to be read as a header" * 99)
    with pytest.raises(errors.StoreUnavailable, match=re.escape(says)) as caught:
        await Ledger.open(url, home)
    assert_one_line(caught.value.message)
    assert "secret" not in caught.value.message


@pytest.mark.postgres
@pytest.mark.parametrize("part", ["database", "username"])
async def test_opening_an_unknown_database_or_as_an_unknown_user(postgres: str, home: Path, part: str):
    url = make_url(postgres).set(**{part: "no_such"})
    with pytest.raises(errors.StoreUnavailable, match="no_such") as caught:
        await Ledger.open(url.render_as_string(hide_password=False), home)
    assert_one_line(caught.value.message)


@pytest.mark.parametrize(
    "url", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "not a url", "sqlite:///file:x?uri=true"]
)
async def test_a_url_that_cannot_be_used_is_a_configuration_error(home: Path, url: str):
    with pytest.raises(errors.ConfigError, match=r"storage.database_url"):
        await Ledger.open(url, home)


async def forget_connections(ledger: Ledger) -> None:
    """Each connection in the pool is closed; the next call makes a new one."""
    disposing = ledger.database._runner.engine.dispose()
    if disposing is not None:
        await disposing


def refuse_connection(*_arguments: object) -> None:
    raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


async def test_every_call_says_that_the_store_is_away(ledger: Ledger):
    await forget_connections(ledger)
    engine = ledger.database._runner.engine
    sqlalchemy_event.listen(getattr(engine, "sync_engine", engine), "do_connect", refuse_connection)
    keys = KeyStore(ledger.database)
    calls = [
        ledger.ping(),
        ledger.accept(spec()),
        ledger.mark_queued(["x"]),
        ledger.get("x"),
        ledger.list_jobs(),
        ledger.cancel("x"),
        ledger.requeue("x"),
        ledger.record([event(spec())], stream="s", old="0-0", new="1-0"),
        ledger.offset("s"),
        ledger.reset_offset("s", "1-0"),
        ledger.unfinished(),
        ledger.undelivered("x"),
        ledger.mark_delivered("x"),
        ledger.counts(),
        keys.list(),
        keys.find("iq-x"),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [errors.StoreUnavailable] * len(calls)
    assert all(result.__cause__ is not None for result in results)


@only_sqlite
async def test_a_full_disk_says_so_and_the_next_write_works(ledger: Ledger):
    """Callers read the refusal: where the database lies is for the log alone."""
    limit = text("PRAGMA max_page_count=1")
    await ledger.database.write(lambda connection: connection.execute(limit))
    with pytest.raises(errors.StoreUnavailable, match="disk of the database is full"):
        await ledger.accept(spec(body=b"x" * 1_000_000))
    await forget_connections(ledger)
    assert await ledger.accept(spec(body=b"x" * 1_000_000))


@only_postgres
async def test_a_full_disk_of_the_server_says_so(ledger: Ledger):
    full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$"
    fires = "CREATE TRIGGER full_disk BEFORE INSERT ON jobs EXECUTE FUNCTION full_disk()"
    for statement in (full, fires):
        await ledger.database.write(partial(Connection.execute, statement=text(statement)))
    with pytest.raises(errors.StoreUnavailable, match="disk of the database is full"):
        await ledger.accept(spec())


@only_postgres
async def test_connections_that_the_server_cut_are_replaced(ledger: Ledger, url: str):
    await asyncio.gather(*(ledger.ping() for _ in range(4)))
    with psycopg.connect(url.replace("+asyncpg", ""), autocommit=True) as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert connection.execute(f"SELECT count(pg_terminate_backend(pid)) {others}").fetchone()[0] > 0
    assert await ledger.accept(spec())
    await ledger.ping()


@only_sqlite
async def test_a_write_waits_for_another_process_write(ledger: Ledger, home: Path):
    other = sqlite3.connect(home / "inferq.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(ledger.accept(spec()))
    # A read goes on meanwhile, and proves that the loop is not held up.
    assert await ledger.counts() == {}
    assert not writing.done()
    other.execute("COMMIT")
    other.close()
    assert await writing


@only_sqlite
async def test_a_write_is_alone_before_its_first_statement(ledger: Ledger, home: Path):
    other = sqlite3.connect(home / "inferq.db", isolation_level=None, timeout=0.0, check_same_thread=False)

    def work(_connection: Connection) -> None:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")

    await ledger.database.write(work)
    other.close()


@only_sqlite
async def test_commits_reach_the_disk_and_readers_do_not_wait(ledger: Ledger):
    def pragmas(connection: Connection) -> tuple[object, object]:
        return tuple(connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous"))

    full = 2
    assert await ledger.database.write(pragmas) == ("wal", full)


@only_sqlite
async def test_a_lock_that_never_ends_becomes_an_error(
    ledger: Ledger, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database_module, "PATIENCE", 0.1)
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.05)
    impatient = await Database.open("sqlite:///inferq.db", home)
    other = sqlite3.connect(home / "inferq.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.StoreUnavailable, match="locked"):
        await Ledger(impatient).accept(spec())
    other.close()
    assert await Ledger(impatient).accept(spec())
    await impatient.close()


@only_sqlite
async def test_writes_that_wait_for_their_turn_are_refused_together(
    home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """One after the other each would wait for the lock anew."""
    monkeypatch.setattr(database_module, "PATIENCE", 0.1)
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.3)
    begun = []
    begin = sqlite._begin_immediate

    def counted(connection: Connection) -> None:
        begun.append(connection)
        begin(connection)

    monkeypatch.setattr(sqlite, "_begin_immediate", counted)
    impatient = await Database.open("sqlite:///inferq.db", home)
    other = sqlite3.connect(home / "inferq.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused = await asyncio.gather(
        *(Ledger(impatient).accept(spec()) for _ in range(10)), return_exceptions=True
    )
    assert [str(error) for error in refused] == ["the database stays locked by other transactions"] * 10
    assert len(begun) < 5  # those that only read begin too
    other.close()
    assert await Ledger(impatient).accept(spec())
    await impatient.close()


async def test_a_transaction_that_lost_runs_again(ledger: Ledger):
    tries = 0

    def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        connection.execute(text("INSERT INTO offsets VALUES ('s', '1-0')"))
        if tries == 1:
            lose(connection)

    await ledger.database.write(work)
    assert tries == 2
    assert await ledger.offset("s") == "1-0"


def lose(connection: Connection) -> None:
    """Fail as a deadlock's victim does, or as a writer while a crashed one's log is recovered."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("DO $$ BEGIN RAISE deadlock_detected; END $$"))
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
    raise OperationalError("BEGIN IMMEDIATE", {}, busy)


async def test_writes_cancelled_at_every_step_leave_the_database_usable(ledger: Ledger):
    for steps in range(40):
        task = asyncio.create_task(ledger.accept(spec()))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await ledger.accept(spec())
    assert 40 <= sum((await ledger.counts()).values()) <= 80
