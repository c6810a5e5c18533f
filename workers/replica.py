"""The replica process: a Celery worker whose doorbells wake one event loop that does the work.

Celery runs in the main thread with a threads pool as large as the replica's slots; `ReplicaService` runs in a loop of
its own. SIGTERM drains: Celery stops consuming, the service lets its jobs end or hands them back.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from celery import Celery
from celery.signals import worker_shutting_down

from inferq import errors
from inferq.config import Settings
from inferq.config.settings import EngineSettings, ModelSettings
from inferq.engine import Launch, find_engine
from inferq.scheduling.placement import Place
from queues.attempts import Attempts
from queues.celery_app import BELL_TASK, bell_queue, make_app
from queues.connection import connect
from queues.presence import Presence
from queues.remote import take_over_revoke
from queues.signals import Signals
from storage.artifacts import ArtifactStore
from workers.consumer import Consumer
from workers.devices import device_env
from workers.engine_process import EngineProcess
from workers.service import ReplicaService, fail_waiting

log = logging.getLogger(__name__)

CPU_NICE = 10


def run(settings: Settings, place: Place) -> int:
    """Be this replica until SIGTERM. Raises ConfigError."""
    if place.model not in settings.served:
        raise errors.ConfigError(
            f"no model {place.model!r} is configured; known: {', '.join(settings.models)}"
        )
    try:
        make_engine = _engine_maker(settings, place)
    except errors.ConfigError as error:
        uvloop.run(_refuse_waiting(settings, place, error.message))
        raise
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="service", daemon=True)
    thread.start()

    def on_loop(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    app = make_app(settings)
    signals = Signals(app, place.name)
    signals.start()
    artifacts = on_loop(ArtifactStore.open(settings.storage.artifacts_url, settings.home))

    async def make_service() -> ReplicaService:
        return ReplicaService(
            settings, place, signals, artifacts, partial(make_engine, artifacts.local_folder)
        )

    service: ReplicaService = on_loop(make_service())
    serving = asyncio.run_coroutine_threadsafe(service.run(), loop)
    take_over_revoke(settings)
    _celery(app, place, service, on_loop)
    on_loop(service.drain())
    serving.result()
    signals.stop()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(2)
    return 0


async def _refuse_waiting(settings: Settings, place: Place, why: str) -> None:
    """No replica of this model can start here: tell those who wait, as when an engine cannot load its model."""
    redis = connect(settings)
    try:
        attempts = Attempts(redis, settings, place.model, place.name, place.node)
        await fail_waiting(attempts, Presence(redis, settings.queue.prefix), place, why)
    finally:
        await redis.aclose()


def _engine_maker(
    settings: Settings, place: Place
) -> Callable[[Path, Callable[[], Awaitable[None]], Callable[[str], Awaitable[None]]], EngineProcess]:
    model = settings.served[place.model]
    engine = find_engine(settings.kind_of(model.engine))
    configured = settings.engines.get(model.engine)
    folder = settings.under_home(model.source)
    launch = Launch(
        model=place.model,
        source=str(folder) if folder.exists() else model.source,
        socket=Path(),
        device=place.device,
        slots=model.slots,
        python=settings.root / configured.python
        if configured and configured.python
        else Path(sys.executable),
        args=tuple(configured.args) if configured else (),
        options=options_of(model, settings.home),
    )

    def make(
        media: Path, on_ready: Callable[[], Awaitable[None]], on_failed: Callable[[str], Awaitable[None]]
    ) -> EngineProcess:
        return EngineProcess(
            engine,
            replace(launch, media=media),
            env={**device_env(place.device, settings), **(configured.env if configured else {})},
            run_dir=settings.run_dir,
            log_file=settings.home / "logs" / f"engine-{place.file_name}.log",
            load_timeout=model.load_timeout,
            nice=_nice(place.device, configured),
            on_ready=on_ready,
            on_failed=on_failed,
        )

    return make


def options_of(model: ModelSettings, home: Path) -> dict[str, Any]:
    """The options of an engine: the declared limits, and those of the configuration with `{home}` filled in."""

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{home}", str(home))
        if isinstance(value, dict):
            return {name: filled(item) for name, item in value.items()}
        return [filled(item) for item in value] if isinstance(value, list) else value

    limits = {f"max_{name}": value for name, value in model.limits.given().items()}
    return {**limits, **filled(model.options)}


def _nice(device: str, configured: EngineSettings | None) -> int:
    """An engine that computes on the processor leaves it at once to those who only pass its answers on."""
    if configured and configured.nice is not None:
        return configured.nice
    return CPU_NICE if device.startswith("cpu") else 0


def _celery(
    app: Celery, place: Place, service: ReplicaService, on_loop: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    """Consume doorbells until a signal ends the worker."""

    @app.task(name=BELL_TASK, ignore_result=True)
    def bell() -> None:
        on_loop(service.serve())

    draining = threading.Thread(target=lambda: on_loop(service.drain()), daemon=True)

    def on_signal(**_: Any) -> None:
        if draining.ident is None:  # a second signal, of somebody in a hurry or of the shim beside the node's
            draining.start()

    worker_shutting_down.connect(on_signal, weak=False)
    worker = app.Worker(
        hostname=place.name,
        pool="threads",
        consumer_cls=Consumer,
        concurrency=service.slots,
        queues=[bell_queue(place.model)],
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        task_events=False,
        quiet=True,
    )
    worker.start()
