"""Fixtures: a database of the test's own, on SQLite and on PostgreSQL, so that each test runs on both."""

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from storage import migrate
from storage.keys import KeyStore
from storage.ledger import Ledger

SQLITE = "sqlite:///inferq.db"
_POSTGRES = "INFERQ_TEST_POSTGRES"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def postgres() -> str:
    """The server's URL; without one the test is skipped, and fails where all must run."""
    url = os.environ.get(_POSTGRES)
    if url:
        return url
    if os.environ.get("CI") == "true":
        pytest.fail(f"{_POSTGRES} must name a PostgreSQL server in CI")
    pytest.skip(f"{_POSTGRES} is not set: no PostgreSQL to test with")


@pytest.fixture(scope="session")
def postgres_template(postgres: str) -> Iterator[str]:
    """A migrated database that tests copy."""
    name = _create(postgres, "template0")
    asyncio.run(migrate.upgrade(_within(postgres, name), Path("/nonexistent")))
    yield name
    _drop(postgres, name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    asyncio.run(migrate.upgrade(SQLITE, folder))
    return folder / "inferq.db"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, backend: str) -> Iterator[str]:
    """A database without tables; on SQLite not even a file."""
    if backend == "sqlite":
        yield SQLITE
        return
    server = request.getfixturevalue("postgres")
    name = _create(server, "template0")
    yield _within(server, name)
    _drop(server, name)


@pytest.fixture
def url(request: pytest.FixtureRequest, backend: str, home: Path) -> Iterator[str]:
    """A migrated database."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), home / "inferq.db")
        yield SQLITE
        return
    server = request.getfixturevalue("postgres")
    name = _create(server, request.getfixturevalue("postgres_template"))
    yield _within(server, name)
    _drop(server, name)


@pytest.fixture
async def ledger(url: str, home: Path) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(url, home)
    yield opened
    await opened.close()


@pytest.fixture
async def keys(ledger: Ledger) -> KeyStore:
    return KeyStore(ledger.database)


def _create(server: str, template: str) -> str:
    name = f"inferq_{uuid.uuid4().hex}"
    _admin(server, "CREATE DATABASE {} TEMPLATE {}", name, template)
    return name


def _drop(server: str, name: str) -> None:
    _admin(server, "DROP DATABASE {} WITH (FORCE)", name)


def _admin(server: str, statement: str, *names: str) -> None:
    with psycopg.connect(server.replace("+asyncpg", ""), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _within(server: str, database: str) -> str:
    return make_url(server).set(database=database).render_as_string(hide_password=False)
