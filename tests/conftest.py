"""Fixtures that every test may use: an own Redis server, an own home, nothing shared with a running stack."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from queues import embedded

for _name in [
    name for name in os.environ if name.startswith("INFERQ_") and not name.startswith("INFERQ_TEST")
]:
    if _name != "INFERQ_ENGINES_PYTHON":
        del os.environ[_name]


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder whose path is short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="iq-") as name:
        yield Path(name)


@pytest.fixture
def redis_url(short_dir: Path) -> Iterator[str]:
    """A redis-server of this test's own, as the embedded one is started."""
    with subprocess.Popen(embedded.server_argv(short_dir / "home", short_dir / "run")) as server:
        url = f"unix://{short_dir}/run/redis.sock"
        client = redis.Redis.from_url(url)
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert server.poll() is None, "redis-server did not start"
        client.close()
        yield url
        server.kill()
