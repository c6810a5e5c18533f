"""Fixtures of the watcher's tests."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferq.config import load_settings
from queues import Gateway, open_gateway
from queues.connection import connect
from storage import migrate, open_storage
from tests.watchers.home import CONFIG, Site


@pytest.fixture
def overrides() -> dict[str, Any]:
    """What a test module changes in the configuration."""
    return {}


@pytest.fixture
async def site(redis_url: str, tmp_path: Path, overrides: dict[str, Any]) -> AsyncIterator[Site]:
    config = tmp_path / "config.yaml"
    tree = {**CONFIG, **overrides}
    config.write_text(yaml.safe_dump({**tree, "queue": {"redis_url": redis_url, **tree.get("queue", {})}}))
    settings = load_settings(config, home=tmp_path / "home", environ={})
    await migrate.upgrade(settings.storage.database_url, settings.home)
    storage = await open_storage(settings)
    redis = connect(settings)
    yield Site(settings, config, redis, storage)
    await redis.aclose()
    await storage.close()


@pytest.fixture
async def gateway(site: Site) -> AsyncIterator[Gateway]:
    gateway = open_gateway(site.settings, site.storage)
    await gateway.start(replies=False)
    yield gateway
    await gateway.stop()
