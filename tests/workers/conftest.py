"""What several tests of the workers need."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.workers.runner_site import Site, runner_site


@pytest.fixture
async def site(redis_url: str, short_dir: Path) -> AsyncIterator[Site]:
    async with runner_site(redis_url, short_dir) as site:
        yield site
