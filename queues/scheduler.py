"""The scheduler process: recorder, reaper, reconciler and placement, each a loop that runs while this process leads.

The reaper runs in those that follow too: a script decides about each lease at once, so that any number of reapers takes
a job back once, and no job waits for another leader. A loop that fails is logged and runs again; none of them can end
the others. Redis or SQL away is such a failure.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from inferq import errors, process
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.fallback import Fallbacks, Reroute
from inferq.hooks import Hooks
from inferq.job import Job
from queues import footing, layout, remote, spending
from queues.celery_app import make_app
from queues.connection import Client, connect, translated
from queues.controls import Controls
from queues.deliverer import Deliverer
from queues.desired import Placement
from queues.door import Door
from queues.hook_counts import REPORT_EVERY, HookReport
from queues.intake import Intake
from queues.leader import HOLD_EVERY, Leadership
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
BEGIN_EVERY = 1.0
"""Seconds between two looks for work to begin beside a loop, while none of it ends."""
REAP_EVERY = 0.25
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
        self._recorder = Recorder(self._redis, storage.ledger, settings)
        self._placement = Placement(self._redis, self._queue, settings)
        self._reconciler = Reconciler(self._redis, self._queue, storage.ledger, self._signals, settings)
        self._intake = Intake(self._queue, storage, self._signals, settings)
        self._artifacts = storage.artifacts
        self._fallbacks = Fallbacks(settings, storage.media.take_all)
        catalog, door = Catalog(settings), Door(settings, self._queue, storage.media)
        asking = Door(settings, self._queue, storage.media, hooks)
        self._recurring = Recurring(self._queue, storage, settings, catalog, asking, hooks)
        self._releaser = Releaser(self._queue, storage, self._signals, settings, catalog, door)
        self._controls = Controls(self._redis, settings, storage.pauses)
        self._storage = storage
        self._deliverer = Deliverer(storage.deliveries, settings)
        self._holding = asyncio.Event()
        self._leading = asyncio.Event()
        self._changes = 1
        """How often another Redis was found, or a lead was over."""
        self._prepared_for = 0
        self._reconcile_now = asyncio.Event()
        self._run_id = ""
        self._away = False
        self._clock: tuple[float, float] | None = None
        """The time of Redis, and by our own clock when it was asked for."""
        self._trusted_at = time.monotonic() + settings.queue.lease

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping`, then give the lock back and close. Raises ConfigError for keys of another release, and
        in production for a Redis that does not keep what it is given.
        """
        await layout.check_at_start(self._redis, self._settings.queue)
        await footing.check(self._redis, strict=self._settings.deployment.environment == "production")
        self._signals.start()
        tasks = [
            asyncio.create_task(self._forever("lock", HOLD_EVERY, self._hold, leader=False)),
            asyncio.create_task(self._forever("lead", 1.0, self._lead, leader=False)),
            asyncio.create_task(layout.watch(self._redis, self._settings.queue)),
            asyncio.create_task(self._forever("recorder", GATHER, self._record)),
            asyncio.create_task(self._forever("reaper", REAP_EVERY, self._reap, leader=False)),
            asyncio.create_task(self._forever("clock", DUE_EVERY, self._due)),
            asyncio.create_task(self._forever("fallback", DUE_EVERY, self._reroute)),
            asyncio.create_task(self._forever("placement", 1.0, self._placement.run_once)),
            asyncio.create_task(
                self._forever("reconciler", RECONCILE_EVERY, self._reconcile, more=self._reconcile_now)
            ),
            asyncio.create_task(self._forever("releaser", 1.0, self._releaser.run_once)),
            asyncio.create_task(
                self._forever(
                    "filling", BEGIN_EVERY, self._releaser.fill_once, more=self._releaser.errands.changed
                )
            ),
            asyncio.create_task(
                self._forever(
                    "recurring", BEGIN_EVERY, self._recurring.run_once, more=self._recurring.errands.changed
                )
            ),
            asyncio.create_task(self._forever("requests", 0.5, self._carry_out)),
            asyncio.create_task(self._forever("artifacts", SWEEP_EVERY, self._sweep)),
            asyncio.create_task(self._forever("forgotten rows", SWEEP_EVERY, self._sweep_rows)),
            asyncio.create_task(self._forever("hooks", REPORT_EVERY, self._hook_report.run_once)),
            asyncio.create_task(
                self._forever("webhooks", BEGIN_EVERY, self._deliverer.run_once, more=self._deliverer.changed)
            ),
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

    async def _hold(self) -> None:
        """Hold the lock. Nothing else is done here: whatever is slow must not cost the lock."""
        try:
            held = await self._leadership.hold()
        except Exception:
            self._step_down()
            self._away = True
            raise
        if held:
            self._holding.set()
        else:
            self._step_down()

    def _step_down(self) -> None:
        self._holding.clear()
        self._leading.clear()
        self._changes += 1

    async def _lead(self) -> None:
        """Lead while the lock is held, once a Redis that is new to this leader holds what it should."""
        await self._holding.wait()
        try:
            if await layout.claim(self._redis, self._settings.queue):
                self._changes += 1  # it has lost its memory
            changes = self._changes
            if self._prepared_for != changes:
                await self._prepare()
                self._prepared_for = changes
        except Exception:
            self._leading.clear()
            raise
        if self._prepared_for == self._changes and not self._leading.is_set():
            log.info("this scheduler leads")
            self._leading.set()

    async def _prepare(self) -> None:
        """Bring Redis up to what SQL knows, the jobs by the reconciler."""
        await footing.check(self._redis, strict=False)
        await self._recorder.align()
        await self._controls.copy()
        prefix = self._settings.queue.prefix
        await spending.restore(self._redis, self._scripts, prefix, self._storage.usage)
        self._reconcile_now.set()

    async def _watch_redis(self) -> None:
        """See whether Redis was away or is another one: a restart, a failover.

        Replicas could not renew meanwhile: their leases get one full length more.
        """
        async with translated():
            info = {**await self._redis.info("server"), **await self._redis.info("replication")}
        run_id = f"{info['run_id']}/{info.get('master_replid', '')}"
        if run_id == self._run_id and not self._away:
            return
        lease = self._settings.queue.lease
        known = self._run_id or self._away
        self._trusted_at = time.monotonic()
        if known or info["uptime_in_seconds"] < lease:
            self._trusted_at += lease
        self._run_id, self._away = run_id, False
        self._changes += 1

    async def _forever(
        self,
        name: str,
        pause: float,
        step: Callable[[], Awaitable[object]],
        *,
        leader: bool = True,
        more: asyncio.Event | None = None,
    ) -> None:
        """Run a step again and again, most only while leading; `more` ends the pause before the next one. The one place
        where a loop's errors end.
        """
        more = more or asyncio.Event()
        while True:
            if leader:
                await self._leading.wait()
            more.clear()
            try:
                await step()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await more.wait()
            except errors.InferqError as error:
                log.warning("%s: %s", name, error.message)
                await asyncio.sleep(1.0)
            except Exception:
                log.exception("%s failed", name)
                await asyncio.sleep(1.0)

    async def _record(self) -> None:
        await self._recorder.run_once()

    async def _reap(self) -> None:
        """Take the jobs back whose leases have ended, where that shows that their replicas are gone."""
        await self._watch_redis()
        await self._watch_clock()
        if self._away or time.monotonic() < self._trusted_at:
            return
        async with translated():
            flat = await self._scripts("reap", REAP_LIMIT)
        for job_id, state, model, bell in zip(*[iter(flat)] * 4, strict=True):
            if state != b"gone":
                log.warning("job %s lost its replica: %s", job_id.decode(), state.decode())
                self._signals.ended(job_id.decode(), state.decode(), message="the replica was lost")
            if bell:
                self._signals.ring(model.decode())

    async def _watch_clock(self) -> None:
        """Leases end by Redis' clock. When it jumps ahead, replicas need time to renew by the new one."""
        asked = time.monotonic()
        async with translated():
            seconds, micros = await self._redis.time()
        now, here = seconds + micros / 1e6, time.monotonic()
        # From one asking to the next answer: however slow the answers were, no more time than that has passed.
        before, self._clock = self._clock, (now, asked)
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
            try:
                other = await self._other_model(job, serving)
            except errors.Unavailable as error:  # its files; it waits for them, and nobody for it
                log.warning("job %s waits for another model: %s", job.id, error.message)
                continue
            state, bell = await self._queue.reroute(job, other)
            if other and state == "queued":
                log.warning("job %s goes from %s to %s", job.id, serving, other.model)
            if state != "stale":
                self._signals.ended(job.id, state, message=job.error.message if job.error else "")
            if other and bell:
                self._signals.ring(other.model)

    async def _other_model(self, job: Job, serving: str) -> Reroute | None:
        """A job that cannot be looked at fails as it had, and keeps those behind it waiting no longer.

        Raises Unavailable when that may be another time.
        """
        try:
            return await self._fallbacks.reroute(job.spec, serving)
        except errors.Unavailable:
            raise
        except Exception:
            log.exception("no other model can be found for job %s", job.id)
            return None

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
        await self._controls.copy()
        await self._reconciler.run_once()
