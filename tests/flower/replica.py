"""A Celery worker as a replica runs one, without an engine: argv is the address of Redis and a file that bells make."""

import sys
from pathlib import Path

from queues import remote
from queues.celery_app import BELL_TASK, bell_queue, make_app
from tests.queues.builders import settings_for

MODELS = {"demo": {"engine": "echo", "source": "-"}}


def main(url: str, rung: str) -> None:
    settings = settings_for(url, models=MODELS)
    app = make_app(settings)
    remote.take_over_revoke(settings)

    @app.task(name=BELL_TASK, send_events=False)
    def bell() -> None:
        Path(rung).write_text("rung")

    options = ["-n", "demo@test", "-Q", bell_queue("demo"), "-P", "threads", "-c", "1", "-E", "-l", "WARNING"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle"])


if __name__ == "__main__":
    main(*sys.argv[1:])
