"""Fixtures: an API that serves, and a replica of its chat model."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferq.config import Settings
from storage import migrate
from tests.api.stack import Replica, Stack, serving, settings_for


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database that tests copy."""
    folder = tmp_path_factory.mktemp("template")
    asyncio.run(migrate.upgrade("sqlite:///inferq.db", folder))
    return folder / "inferq.db"


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return settings_for(tmp_path / "home", redis_url)


@pytest.fixture
async def stack(settings: Settings, template: Path) -> AsyncIterator[Stack]:
    async with serving(settings, template) as running:
        yield running


@pytest.fixture
async def replica(settings: Settings) -> AsyncIterator[Replica]:
    made = Replica(settings)
    yield made
    await made.close()
