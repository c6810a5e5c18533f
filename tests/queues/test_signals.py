"""Doorbells and task events as Celery and Flower get them, also across a restart of Redis."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.events.state import State

from inferq.job import Job, JobState
from queues import signals
from queues.celery_app import make_app
from queues.signals import Signals
from tests.queues.builders import PREFIX, Server, settings_for, spec, until

MODELS = {"demo": {"engine": "echo", "source": "-"}}


class Listener:
    """What Flower would know: Celery's own picture of all tasks, made from the events on the wire."""

    def __init__(self, url: str):
        self._app = make_app(settings_for(url, models=MODELS))
        self.state = State()
        self._receiver: Any = None
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        with self._app.connection_for_read() as connection:
            self._receiver = self._app.events.Receiver(connection, handlers={"*": self._take})
            self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def start(self) -> None:
        self._thread.start()
        until(lambda: self._receiver)

    def stop(self) -> None:
        self._receiver.should_stop = True
        self._thread.join()

    def _take(self, event: dict[str, Any]) -> None:
        self.state.event(event)

    def task(self, job_id: str) -> str | None:
        found = self.state.tasks.get(job_id)
        return found.state if found else None


@contextmanager
def signalling(url: str, name: str = "replica@host") -> Iterator[Signals]:
    sender = Signals(make_app(settings_for(url, models=MODELS)), name)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()
        assert not sender._thread.is_alive()


@contextmanager
def listening(url: str, sender: Signals) -> Iterator[Listener]:
    """A listener that hears: events that were sent before it subscribed are gone."""
    listener = Listener(url)
    listener.start()
    first = spec()

    def heard() -> bool:
        sender.sent(first)
        return listener.task(first.id) is not None

    try:
        until(heard)
        yield listener
    finally:
        listener.stop()


def running(asked: Any, attempt: int = 1) -> Job:
    return Job(spec=asked, state=JobState.RUNNING, attempt=attempt)


def bells(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return client.llen(f"{PREFIX}bell.demo")


def test_a_ring_is_one_message_in_the_models_queue(redis_url: str):
    with signalling(redis_url) as sender:
        sender.ring("demo")
        sender.ring("demo")
        until(lambda: bells(redis_url) == 2)


def test_a_job_is_shown_in_each_of_its_states(redis_url: str):
    asked = spec(tenant="team")
    with signalling(redis_url) as sender, listening(redis_url, sender) as listener:
        sender.sent(asked)
        until(lambda: listener.task(asked.id) == "PENDING")
        shown = listener.state.tasks[asked.id]
        assert shown.name == "demo"
        assert "'lane': 'medium'" in shown.kwargs
        assert "'tenant': 'team'" in shown.kwargs
        sender.started(running(asked))
        until(lambda: listener.task(asked.id) == "STARTED")
        assert listener.state.tasks[asked.id].worker.hostname == "replica@host"
        sender.ended(asked.id, "queued")
        until(lambda: listener.task(asked.id) == "RETRY")
        sender.started(running(asked, attempt=2))
        until(lambda: listener.task(asked.id) == "STARTED")
        sender.ended(asked.id, "succeeded", runtime=1.5)
        until(lambda: listener.task(asked.id) == "SUCCESS")
        assert listener.state.tasks[asked.id].runtime == 1.5


@pytest.mark.parametrize(
    ("ended", "shown"), [("failed", "FAILURE"), ("cancelled", "REVOKED"), ("expired", "REVOKED")]
)
def test_an_ended_job_is_shown_as_what_it_became(redis_url: str, ended: str, shown: str):
    asked = spec()
    with signalling(redis_url) as sender, listening(redis_url, sender) as listener:
        sender.sent(asked)
        sender.ended(asked.id, ended, message="why")
        until(lambda: listener.task(asked.id) == shown)


def test_a_requeued_job_is_shown_as_waiting(redis_url: str):
    asked = spec()
    with signalling(redis_url) as sender, listening(redis_url, sender) as listener:
        sender.ended(asked.id, "failed")
        until(lambda: listener.task(asked.id) == "FAILURE")
        sender.sent(asked, again=True)
        until(lambda: listener.task(asked.id) == "PENDING")


def test_events_go_out_although_others_keep_coming(redis_url: str):
    """An inbox that is never empty must not hold back what is due."""
    asked = spec()
    with signalling(redis_url) as sender, listening(redis_url, sender) as listener:
        stop = threading.Event()
        busy = threading.Thread(target=keep_busy, args=(sender, stop))
        busy.start()
        try:
            sender.sent(asked)
            until(lambda: listener.task(asked.id) == "PENDING", within=5)
        finally:
            stop.set()
            busy.join()


def keep_busy(sender: Signals, stop: threading.Event) -> None:
    while not stop.is_set():
        if sender._inbox.qsize() < 100:
            sender.ring("demo")
        else:
            time.sleep(0)


def test_a_signal_that_cannot_be_sent_does_not_stop_the_others(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(signals, "PAUSE", 0.01)
    with signalling(redis_url) as sender:
        sender._event("task-sent", spec().id, pid=1)
        sender.ring("demo")
        until(lambda: bells(redis_url) == 1)


def test_signals_go_on_after_redis_was_away(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(signals, "PAUSE", 0.01)
    with Server(short_dir) as server, signalling(server.url) as sender:
        sender.ring("demo")
        until(lambda: bells(server.url) == 1)
        server.kill()
        server.wipe()
        sender.sent(spec())
        server.start()

        def rung() -> bool:
            sender.ring("demo")
            return bells(server.url) > 0

        until(rung)


def test_a_full_inbox_drops_and_does_not_block(redis_url: str):
    sender = Signals(make_app(settings_for(redis_url, models=MODELS)))
    for _ in range(signals.BACKLOG + 10):
        sender.ring("demo")
    assert sender._inbox.qsize() == signals.BACKLOG
