"""The scheduler process: recorder, reaper, reconciler and placement, each a loop that runs while this process leads.

A loop that fails is logged and runs again; none of them can end the others. Redis or SQL away is such a failure.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from inferq import errors, process
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.fallback import Fallbacks
from inferq.hooks import Hooks
from queues import layout, remote, spending
from queues.celery_app import make_app
from queues.connection import Client, connect, translated
from queues.controls import Controls
from queues.deliverer import LOOK_EVERY, Deliverer
from queues.desired import Placement
from queues.door import Door
from queues.hook_counts import REPORT_EVERY, HookReport
from queues.intake import Intake
from queues.leader import Leadership
from queues.queue import JobQueue
from queues.reconciler import Reconciler
from queues.recorder import GATHER, Recorder
from queues.recurring import Recurring
from queues.releaser import Releaser
from queues.scripts import Scripts
from queues.signals import Signals
from storage import Storage

log = logging.getLogger(__name__)

RECONCILE_EVERY = 30.0
REAP_LIMIT = 500
DUE_EVERY = 0.2
DUE_LIMIT = 500
SWEEP_EVERY = 3600.0


class Scheduler:
    def __init__(self, settings: Settings, storage: Storage):
        self._settings = settings
        self._redis: Client = connect(settings, connections=16)
        self._scripts = Scripts(self._redis, settings.queue)
        self._signals = Signals(make_app(settings), "scheduler")
        self._queue = JobQueue(self._redis, settings, storage.keys)
        self._leadership = Leadership(self._redis, settings.queue.prefix)
        hooks = Hooks(settings.hooks)
        if hooks:
            storage.ledger.database.listen(hooks.after_finishes)
        self._hook_report = HookReport(hooks, self._redis, settings.queue.prefix)
        self._recorder = Recorder(self._redis, storage.ledger, settings, hooks)
        self._placement = Placement(self._redis, self._queue, settings)
        self._reconciler = Reconciler(self._redis, self._queue, storage.ledger, self._signals, settings)
        self._intake = Intake(self._queue, storage, self._signals, settings)
        self._artifacts = storage.artifacts
        self._fallbacks = Fallbacks(settings)
        catalog, door = Catalog(settings), Door(settings, self._queue, storage.media)
        asking = Door(settings, self._queue, storage.media, hooks)
        self._recurring = Recurring(self._queue, storage, settings, catalog, asking, hooks)
        self._releaser = Releaser(self._queue, storage, self._signals, settings, catalog, door)
        self._controls = Controls(self._redis, settings, storage.pauses)
        self._storage = storage
        self._deliverer = Deliverer(storage.deliveries, settings)
        self._leading = asyncio.Event()
        self._reconcile_now = asyncio.Event()
        self._run_id = ""
        self._away = False
        self._clock: tuple[float, float] | None = None
        self._trusted_at = time.monotonic() + settings.queue.lease

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping`, then give the lock back and close. Raises ConfigError for keys of another release."""
        await layout.check_at_start(self._redis, self._settings.queue.prefix)
        self._signals.start()
        tasks = [
            asyncio.create_task(self._lead()),
            asyncio.create_task(layout.watch(self._redis, self._settings.queue.prefix)),
            asyncio.create_task(self._forever("recorder", GATHER, self._record)),
            asyncio.create_task(self._forever("reaper", 1.0, self._reap)),
            asyncio.create_task(self._forever("clock", DUE_EVERY, self._due)),
            asyncio.create_task(self._forever("fallback", DUE_EVERY, self._reroute)),
            asyncio.create_task(self._forever("placement", 1.0, self._placement.run_once)),
            asyncio.create_task(self._forever("reconciler", 0.0, self._reconcile)),
            asyncio.create_task(self._forever("releaser", 1.0, self._releaser.run_once)),
            asyncio.create_task(self._forever("recurring", 1.0, self._recurring.run_once)),
            asyncio.create_task(self._forever("requests", 0.5, self._carry_out)),
            asyncio.create_task(self._forever("artifacts", SWEEP_EVERY, self._sweep)),
            asyncio.create_task(self._forever("forgotten rows", SWEEP_EVERY, self._sweep_rows)),
            asyncio.create_task(self._forever("hooks", REPORT_EVERY, self._hook_report.run_once)),
            asyncio.create_task(self._forever("webhooks", LOOK_EVERY, self._deliverer.run_once)),
        ]
        await stopping.wait()
        await process.end_tasks(tasks)
        await self._deliverer.stop()
        await self._releaser.errands.stop()
        await self._recurring.errands.stop()
        with contextlib.suppress(errors.QueueUnavailable):
            await self._leadership.release()
        self._signals.stop()
        await self._redis.aclose()

    async def _lead(self) -> None:
        """Hold the lock and watch for another Redis behind the address: a restart, a failover, lost memory."""
        while True:
            try:
                if await self._leadership.hold():
                    await self._watch_redis()
                    if not self._leading.is_set():
                        log.info("this scheduler leads")
                    self._leading.set()
                else:
                    self._leading.clear()
                    self._run_id = ""
            except errors.InferqError as error:
                self._leading.clear()
                self._away = True
                log.warning("waiting to lead: %s", error.message)
            await asyncio.sleep(1.0)

    async def _watch_redis(self) -> None:
        """See whether Redis was away, is another one, or has forgotten the version that is written here."""
        forgot = await layout.claim(self._redis, self._settings.queue.prefix)
        async with translated():
            info = {**await self._redis.info("server"), **await self._redis.info("replication")}
        run_id = f"{info['run_id']}/{info.get('master_replid', '')}"
        if run_id == self._run_id and not forgot and not self._away:
            return
        lease = self._settings.queue.lease
        if self._run_id or self._away or info["uptime_in_seconds"] < lease:
            # Replicas could not renew while Redis was away: their leases get one full length more.
            self._trusted_at = time.monotonic() + lease
        else:
            self._trusted_at = time.monotonic()
        await self._recorder.align()
        await self._controls.copy()
        prefix = self._settings.queue.prefix
        await spending.restore(self._redis, self._scripts, prefix, self._storage.usage)
        self._run_id, self._away = run_id, False
        self._reconcile_now.set()

    async def _forever(self, name: str, pause: float, step: Callable[[], Awaitable[object]]) -> None:
        """Run a step again and again while leading. The one place where a loop's errors end."""
        while True:
            await self._leading.wait()
            try:
                await step()
                await asyncio.sleep(pause)
            except errors.InferqError as error:
                log.warning("%s: %s", name, error.message)
                await asyncio.sleep(1.0)
            except Exception:
                log.exception("%s failed", name)
                await asyncio.sleep(1.0)

    async def _record(self) -> None:
        await self._recorder.run_once()

    async def _reap(self) -> None:
        await self._watch_clock()
        if time.monotonic() < self._trusted_at:
            return
        async with translated():
            flat = await self._scripts("reap", REAP_LIMIT)
        for job_id, state in zip(flat[::2], flat[1::2], strict=True):
            if state != b"gone":
                log.warning("job %s lost its replica: %s", job_id.decode(), state.decode())
                self._signals.ended(job_id.decode(), state.decode(), message="the replica was lost")

    async def _watch_clock(self) -> None:
        """Leases end by Redis' clock. When it jumps ahead, replicas need time to renew by the new one."""
        async with translated():
            seconds, micros = await self._redis.time()
        now, here = seconds + micros / 1e6, time.monotonic()
        before, self._clock = self._clock, (now, here)
        lease = self._settings.queue.lease
        if before and now - before[0] > here - before[1] + lease / 3:
            log.warning("the clock of Redis went ahead by %.0f s", now - before[0] - (here - before[1]))
            self._trusted_at = here + lease

    async def _due(self) -> None:
        """Pauses before another attempt that are over, and deadlines that have passed."""
        async with translated():
            flat = await self._scripts("due", DUE_LIMIT)
        for job_id, state, model, bell in zip(*[iter(flat)] * 4, strict=True):
            if state == b"expired":
                self._signals.ended(job_id.decode(), "expired")
            elif bell:
                self._signals.ring(model.decode())

    async def _reroute(self) -> None:
        """Jobs that their model has failed go to the next one of its chain."""
        for job in await self._queue.put_aside(DUE_LIMIT):
            serving = job.served_by or job.spec.model
            other = await self._fallbacks.reroute(job.spec, serving)
            state, bell = await self._queue.reroute(job, other)
            if other and state == "queued":
                log.warning("job %s goes from %s to %s", job.id, serving, other.model)
            if state != "stale":
                self._signals.ended(job.id, state, message=job.error.message if job.error else "")
            if other and bell:
                self._signals.ring(other.model)

    async def _carry_out(self) -> None:
        """Cancels that were asked for in Flower. A job requeued since is left alone."""
        for request in await remote.requests(self._redis, self._settings.queue.prefix):
            with contextlib.suppress(errors.JobNotFound):
                job = await self._intake.find(request.job_id)
                if request.generation in (None, job.generation):
                    await self._intake.cancel(request.job_id)
            await remote.forget(self._redis, self._settings.queue.prefix, request.position)

    async def _sweep(self) -> None:
        """Remove the unfinished files of writers that were killed."""
        removed = await self._artifacts.sweep()
        if removed:
            log.info("removed %d unfinished artifacts", removed)

    async def _sweep_rows(self) -> None:
        """Remove idempotency keys that are free again, and webhook messages that are done with."""
        await self._storage.claims.sweep(self._settings.api.idempotency_ttl)
        await self._storage.deliveries.sweep(self._settings.webhooks.keep)

    async def _reconcile(self) -> None:
        self._reconcile_now.clear()
        await self._reconciler.run_once()
        await self._controls.copy()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECONCILE_EVERY):
                await self._reconcile_now.wait()
