"""The schema: from empty to newest, equal to the tables of the code, and what is said when it is not."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from inferq import errors
from storage import migrate, revision, tables
from storage.database import Database
from storage.ledger import Ledger
from tests.storage.builders import spec


async def on(url: str, home: Path, work):
    database = await Database.open(url, home)
    try:
        return await database.write(work)
    finally:
        await database.close()


def differences(connection: Connection) -> list:
    options = {"compare_type": True, "compare_server_default": True}
    return compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)


def partial_indexes(connection: Connection) -> dict[str, bool]:
    found = [index for table in tables.metadata.tables for index in inspect(connection).get_indexes(table)]
    option = f"{connection.dialect.name}_where"
    return {index["name"]: index.get("dialect_options", {}).get(option) is not None for index in found}


async def test_migrations_make_the_tables_of_the_code(empty_url: str, home: Path):
    await migrate.upgrade(empty_url, home)
    assert await on(empty_url, home, differences) == []


async def test_partial_indexes_are_partial_in_both(url: str, home: Path, backend: str):
    # compare_metadata looks at names and columns only.
    expected = {
        index.name: index.dialect_options[backend]["where"] is not None
        for table in tables.metadata.tables.values()
        for index in table.indexes
    }
    assert await on(url, home, partial_indexes) == expected


async def test_upgrade_again_changes_nothing(url: str, home: Path):
    asked = spec()
    ledger = await Ledger.open(url, home)
    await ledger.accept(asked)
    await migrate.upgrade(url, home)
    await revision.check(url, home)
    assert (await ledger.get(asked.id)).spec == asked
    await ledger.close()


async def test_check_of_an_empty_database_says_what_to_run(empty_url: str, home: Path):
    with pytest.raises(errors.StoreUnavailable, match="python -m api --init"):
        await revision.check(empty_url, home)
    assert list(home.iterdir()) == []


async def test_an_unmigrated_database_says_what_to_run(empty_url: str, home: Path, backend: str):
    if backend == "sqlite":
        (home / "inferq.db").touch()
    with pytest.raises(errors.StoreUnavailable, match="python -m api --init"):
        await revision.check(empty_url, home)
    ledger = await Ledger.open(empty_url, home)
    with pytest.raises(errors.StoreUnavailable, match="python -m api --init"):
        await ledger.offset("s")
    await ledger.close()


async def test_a_newer_schema_is_told_apart(url: str, home: Path):
    newer = text("UPDATE alembic_version SET version_num = '9999'")
    await on(url, home, lambda connection: connection.execute(newer) and None)
    with pytest.raises(errors.StoreUnavailable, match="newer"):
        await revision.check(url, home)


async def test_a_failed_upgrade_leaves_the_schema_as_it_was(
    empty_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
):
    upgrade = migrate._upgrade

    def fails(connection: Connection) -> None:
        upgrade(connection)
        raise ZeroDivisionError

    monkeypatch.setattr(migrate, "_upgrade", fails)
    with pytest.raises(ZeroDivisionError):
        await migrate.upgrade(empty_url, home)
    assert await on(empty_url, home, lambda connection: inspect(connection).get_table_names()) == []


def test_there_is_one_newest_version():
    scripts = ScriptDirectory(str(migrate._SCRIPTS))
    assert len(scripts.get_heads()) == 1
    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(revision.REVISIONS)


async def test_only_the_owner_reads_the_sqlite_file(tmp_path: Path):
    await migrate.upgrade("sqlite:///deep/inferq.db", tmp_path)
    assert (tmp_path / "deep" / "inferq.db").stat().st_mode & 0o077 == 0
