"""The other side of `queue_celery_ratio`: Celery as its documentation starts it, with one task that does nothing.

`celery -A benchmarks.plain_celery worker`; the broker is what `PLAIN_BROKER` says. Threads pool, results ignored,
everything else at its default.
"""

import os

from celery import Celery

app = Celery("plain", broker=os.environ.get("PLAIN_BROKER"))
app.conf.task_ignore_result = True


@app.task(name="plain.noop")
def noop(body: str) -> None:
    """Do nothing."""
