"""An embedded Redis of a benchmark's own, for what is measured without the rest of inferq."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from benchmarks.stack import Broken, Program, environment
from inferq.config import Settings
from queues import embedded

FROM_MEMORY = ("--appendonly", "no")
"""For a million jobs: rewriting the file of a server that is being filled would be most of the work."""
ROOMY = {"max_queue_size": 2**31, "max_tenant_jobs": 2**31, "max_queue_bytes": 2**40}


@contextlib.contextmanager
def own_redis(*extra: str) -> Iterator[Settings]:
    """Settings for a server that runs as inferq starts it, `extra` options aside; its queues have no bounds."""
    home = Path(tempfile.mkdtemp(prefix="inferq-bench-"))
    argv = embedded.server_argv(home, home / "run", extra=extra)
    program = Program(argv, home / "redis.log", environment())
    try:
        url = f"unix://{home}/run/redis.sock"
        _await(url, program)
        yield Settings.model_validate({"queue": {"redis_url": url, **ROOMY}})
    finally:
        program.stop()
        shutil.rmtree(home, ignore_errors=True)


def _await(url: str, program: Program) -> None:
    deadline = time.monotonic() + 20.0
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
                return
            except redis.RedisError as error:
                if program.ended or time.monotonic() > deadline:
                    raise Broken(f"Redis does not answer: {error}; {program.last_words()}") from error
            time.sleep(0.05)
