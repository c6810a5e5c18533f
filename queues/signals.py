"""Doorbells and task events: everything this project says through Celery, from one background thread.

Both are hints. A lost doorbell is made good by the replica's own look at its ready set, a lost event only by the next
one, so nothing here blocks, retries or raises into a caller.
"""

import logging
import os
import queue
import socket
import sys
import threading
import time
from typing import Any

from celery import Celery
from celery.events import EventDispatcher
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from inferq.job import Job, JobSpec, JobState
from queues.celery_app import BELL_TASK, bell_queue

log = logging.getLogger(__name__)

EVENT_TICK = 0.05
"""Events of this many seconds go out together."""
BACKLOG = 20_000
SWITCH_INTERVAL = 0.0005
PAUSE = 0.5
"""Seconds between two attempts to reach Redis; meanwhile the inbox fills up to its bound."""


class Signals:
    """Sends doorbells and events. `name` is the worker that Flower shows events under."""

    def __init__(self, app: Celery, name: str | None = None):
        self._app = app
        self._name = name or f"gateway.{os.getpid()}@{socket.gethostname()}"
        self._inbox: queue.Queue[tuple[str, Any] | None] = queue.Queue(BACKLOG)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)

    def start(self) -> None:
        # The thread shares its process with an event loop: at the default of 5 ms each hand-over of the interpreter
        # between the two is a delay that a waiting caller sees.
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._thread.start()

    def stop(self) -> None:
        """Send what is left, for at most 1 s."""
        self._stopping.set()
        self._put(None)
        self._thread.join(1)

    def ring(self, model: str) -> None:
        """Say that a model has work."""
        self._put(("bell", model))

    def sent(self, spec: JobSpec, *, again: bool = False) -> None:
        """A job was accepted; `again`: it had ended before, which Flower only forgets after a retry."""
        if again:
            self.ended(spec.id, "queued")
        self._event(
            "task-sent",
            spec.id,
            **_described(spec),
            queue=bell_queue(spec.model),
            routing_key=spec.lane.value,
        )

    def started(self, job: Job) -> None:
        """A replica has claimed a job."""
        self._event("task-received", job.id, **_described(job.spec), retries=max(job.attempt - 1, 0))
        self._event("task-started", job.id)

    def ended(self, job_id: str, state: JobState | str, *, runtime: float = 0.0, message: str = "") -> None:
        """A job has left `running`, or was cancelled while it waited."""
        match str(state):
            case "succeeded":
                self._event("task-succeeded", job_id, runtime=runtime, result="")
            case "queued":
                self._event("task-retried", job_id, exception=message or "queued again", traceback="")
            case "cancelled" | "expired":
                self._event(
                    "task-revoked", job_id, terminated=False, signum=None, expired=str(state) == "expired"
                )
            case _:
                self._event("task-failed", job_id, exception=message or str(state), traceback="")

    def _event(self, kind: str, job_id: str, **fields: Any) -> None:
        self._put(
            ("event", (kind, {"uuid": job_id, "local_received": None, **fields, "timestamp": time.time()}))
        )

    def _put(self, item: tuple[str, Any] | None) -> None:
        try:
            self._inbox.put_nowait(item)
        except queue.Full:
            log.debug("signals: backlog is full, one was dropped")

    def _run(self) -> None:
        running = True
        while running:
            try:
                with self._app.connection_for_write() as connection:
                    dispatcher = EventDispatcher(
                        connection,
                        hostname=self._name,
                        app=self._app,
                        buffer_while_offline=False,
                        buffer_group=["task"],
                        buffer_limit=BACKLOG,
                    )
                    with self._app.amqp.Producer(connection) as producer:
                        running = self._serve(producer, dispatcher)
            except (RedisError, OperationalError, OSError) as error:
                log.debug("signals: %s", error)
                running = not self._stopping.wait(PAUSE)
            except Exception:
                log.exception("a doorbell or an event could not be sent")
                running = not self._stopping.wait(PAUSE)

    def _serve(self, producer: Any, dispatcher: EventDispatcher) -> bool:
        flush_at: float | None = None
        while True:
            left = None if flush_at is None else flush_at - time.monotonic()
            if left is not None and left <= 0:
                dispatcher.flush()
                flush_at = None
                continue
            try:
                item = self._inbox.get(timeout=left)
            except queue.Empty:
                continue
            if item is None:
                dispatcher.flush()
                return False
            if item[0] == "bell":
                self._app.send_task(BELL_TASK, queue=bell_queue(item[1]), producer=producer, retry=False)
            else:
                kind, fields = item[1]
                dispatcher.send(kind, **fields)
                flush_at = flush_at or time.monotonic() + EVENT_TICK


def _described(spec: JobSpec) -> dict[str, Any]:
    """What Flower shows of a job: the model as the task's name, lane and tenant as its arguments."""
    words = {"model": spec.model, "lane": spec.lane.value, "endpoint": spec.endpoint, "tenant": spec.tenant}
    return {
        "name": f"{spec.model}",
        "args": "()",
        "kwargs": repr(words),
        "root_id": spec.id,
        "parent_id": None,
    }
