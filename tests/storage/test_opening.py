"""Opening the stores of one process."""

import subprocess
import sys
from pathlib import Path

import pytest

import storage
from inferq import errors
from inferq.config import Settings
from storage import migrate
from storage.keys import Role
from tests.storage.builders import spec


async def test_the_three_stores_open_and_work(url: str, home: Path):
    settings = Settings.model_validate({"home": home, "storage": {"database_url": url}})
    opened = await storage.open_storage(settings)
    asked = spec()
    assert await opened.ledger.accept(asked)
    _, plaintext = await opened.keys.create("ci", Role.USER)
    assert await opened.keys.find(plaintext) is not None
    artifact = await opened.artifacts.put(b"data", "text/plain")
    assert (home / "artifacts" / artifact.sha256[:2] / artifact.sha256).read_bytes() == b"data"
    await opened.close()


async def test_an_old_schema_is_refused_before_anything_is_made(home: Path):
    with pytest.raises(errors.StoreUnavailable, match="python -m api --init"):
        await storage.open_storage(Settings(home=home))
    assert list(home.iterdir()) == []


async def test_the_default_settings_lie_under_home(home: Path):
    settings = Settings(home=home)
    await migrate.upgrade(settings.storage.database_url, settings.home)
    await (await storage.open_storage(settings)).close()
    assert {path.name for path in home.iterdir()} == {"inferq.db", "artifacts"}


def test_a_missing_database_ends_a_program_with_one_line(home: Path):
    code = "import asyncio, pathlib, sys; from storage import migrate, sqlite; from inferq import errors\n"
    code += "try: asyncio.run(migrate.upgrade('sqlite:///.', pathlib.Path(sys.argv[1])))\n"
    code += "except errors.StoreUnavailable as error: print(error)"
    command = [sys.executable, "-W", "error", "-c", code, str(home)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ended.stdout.count("\n"), ended.stderr) == (1, "")


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'storage' has"):
        _ = storage.nothing
