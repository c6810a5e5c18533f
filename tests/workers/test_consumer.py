"""The consumer of doorbells beside a Redis that refuses writes: it comes back, and holds no more than before."""

import subprocess
import sys
from pathlib import Path

import psutil
import redis

from inferq.testing import eventually

WORKER = """
import logging
import sys
from pathlib import Path

from queues.celery_app import bell_queue, make_app
from tests.api.stack import settings_for
from workers.consumer import Consumer

logging.basicConfig()
app = make_app(settings_for(Path(sys.argv[1]), sys.argv[2]))
worker = app.Worker(
    hostname="w", pool="threads", consumer_cls=Consumer, concurrency=1, queues=[bell_queue("demo")],
    loglevel="ERROR", without_gossip=True, without_mingle=True, task_events=False,
)
worker.start()
"""
TRIES = 12
"""Of the worker, while Redis is full: each left two connections."""


def test_connections_that_a_full_redis_refuses_are_closed(tmp_path: Path, redis_url: str) -> None:
    log = tmp_path / "log"
    with (
        redis.Redis.from_url(redis_url) as client,
        log.open("w") as out,
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), redis_url], stderr=out) as process,
    ):
        try:
            others = lambda: [each for each in client.client_list() if int(each["id"]) != client.client_id()]  # noqa: E731
            eventually(lambda: len(others()) >= 5, "the worker consumes", 60)
            held = psutil.Process(process.pid).num_fds()
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "1kb")
            for each in others():
                client.client_kill_filter(_id=each["id"])
            eventually(lambda: log.read_text().count("Cannot connect") >= TRIES, "it has tried often", 60)
            assert psutil.Process(process.pid).num_fds() <= held
            client.config_set("maxmemory", "0")
            eventually(lambda: len(others()) >= 5, "the worker consumes again", 60)
        finally:
            process.kill()
