"""A replica's event loop: slots, leases, cancels and signs of life around one engine and one runner.

Celery's threads only say "there may be work"; everything runs here. Slots are counted here and nowhere else.

A slot that finds no job lingers a moment inside its Celery task: accept wakes it over the control stream, which is
faster and cheaper than a doorbell. A wake that comes too late is passed on as a doorbell.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from inferq import errors, process
from inferq.config import Settings
from inferq.hooks import Hooks
from inferq.job import Failure
from inferq.retry import RetryPolicy
from inferq.scheduling.placement import Place
from queues import layout
from queues.attempts import LINGER, Attempts, Outcome
from queues.connection import BLOCK_MS, Client, connect, translated
from queues.hook_counts import REPORT_EVERY, HookReport
from queues.presence import Learnt, Presence, ReplicaInfo, loaded_as
from queues.reply_writer import ReplyWriter
from queues.signals import Signals
from storage.artifacts import ArtifactStore
from workers.breaker import Breaker
from workers.endings import Endings
from workers.engine_process import EngineProcess, EngineState
from workers.files import Files
from workers.lane_priority import passes_lanes
from workers.runner import Runner
from workers.running import Running
from workers.slot import Slot

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
SHOW_EVERY = 2.0
PROGRESS_EVERY = 0.5
PROGRESS_AFTER = 1.0
"""Seconds after which a job is long enough for people to ask how far it is."""
ALIVE = frozenset({EngineState.STARTING.value, EngineState.READY.value})


class ReplicaService:
    """One replica. `serve` is what a doorbell calls; `run` holds the loops until `drain` has ended."""

    def __init__(
        self,
        settings: Settings,
        place: Place,
        signals: Signals,
        artifacts: ArtifactStore,
        make_engine: Callable[
            [Callable[[], Awaitable[None]], Callable[[str], Awaitable[None]]], EngineProcess
        ],
    ):
        self._settings = settings
        self._place = place
        self._prefix = settings.queue.prefix
        self._redis: Client = connect(settings, connections=64)
        self._presence = Presence(self._redis, self._prefix)
        self._signals = signals
        self._attempts = Attempts(self._redis, settings, place.model, place.name, place.node)
        self._writer = ReplyWriter(self._redis, self._attempts, self._prefix)
        self._engine = make_engine(self._on_ready, self._on_failed)
        self._slots = settings.served[place.model].slots
        limit = settings.processing.max_workers
        self._slots = self._slots if limit == "auto" else min(self._slots, limit)
        hooks = Hooks(settings.hooks)
        self._hook_report = HookReport(hooks, self._redis, self._prefix)
        self._taken: dict[str, Slot] = {}
        self._idle_since = time.time()
        self._draining = False
        self._drained = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._runner = Runner(
            self._attempts,
            self._writer,
            signals,
            artifacts,
            Files(artifacts, self._engine.media),
            inline_result=settings.storage.inline_result,
            judge=_endings(settings),
            session=lambda: self._engine.session,
            on_broken=self._engine.doubt,
            died=self._engine.died,
            released=self._let_go,
            hooks=hooks,
            passes_lanes=passes_lanes(settings.served[place.model]),
        )
        self._breaker = self._runner.endings.breaker
        self._release_bound = settings.served[place.model].release_bound
        self._control_cursor: str | None = None

    @property
    def slots(self) -> int:
        return self._slots

    async def run(self) -> None:
        """Host the engine and serve until drained; then stop the engine."""
        watching = asyncio.create_task(layout.watch(self._redis, self._settings.queue))
        engine = asyncio.create_task(self._engine.run())
        loops = [
            asyncio.create_task(self._forever(pause, step))
            for pause, step in (
                (self._attempts.lease / 3, self._renew),
                (LOOK_EVERY, self._look),
                (0.0, self._listen),
                (SHOW_EVERY, self._show),
                (REPORT_EVERY, self._hook_report.run_once),
                (0.5, self._watch_lease),
                (PROGRESS_EVERY, self._follow_progress),
            )
        ]
        await self._drained.wait()
        self._engine.stop()
        await engine
        await process.end_tasks([*loops, watching])
        try:
            async with translated():
                await self._presence.hide("replica", self._place.name)
                await self._redis.delete(f"{self._prefix}ctl:{self._place.name}")
        except errors.QueueUnavailable:
            log.info("Redis is away; this replica's record lapses by itself")
        await self._redis.aclose()

    async def serve(self) -> None:
        """Take the best job, run it, and go on until nothing is left for this slot and it has lingered in vain."""
        if not self._may_take(len(self._taken)):
            return
        if len(self._taken) >= self._slots:
            self._wake_lingering(1)
            return
        slot = Slot()
        self._taken[slot.name] = slot
        try:
            attempt = await self._attempts.claim(slot.name)
            while attempt is not None or await self._linger(slot):
                if attempt is None:
                    attempt = await self._attempts.claim(slot.name)
                else:
                    attempt = await self._runner.run(attempt, may_claim=self._may_claim, slot=slot.name)
                    self._idle_since = time.time()
        except errors.QueueUnavailable as error:
            log.warning("claiming: %s", error.message)
        finally:
            del self._taken[slot.name]

    async def _linger(self, slot: Slot) -> bool:
        """Wait for a wake; False when the slot is to be given back."""
        return self._may_claim() and await slot.linger(LINGER) and self._may_claim()

    def _wake_lingering(self, most: int) -> int:
        """Wake up to so many slots that linger; how many there were."""
        lingering = [slot for slot in self._taken.values() if slot.lingers][:most]
        for slot in lingering:
            slot.wake()
        return len(lingering)

    @property
    def _busy(self) -> int:
        return sum(not slot.lingers for slot in self._taken.values())

    async def drain(self) -> None:
        """Take no more jobs, let the running ones finish within the budget, hand the others back, end."""
        self._draining = True
        deadline = time.monotonic() + self._settings.processing.drain_timeout
        self._wake_lingering(self._slots)
        with contextlib.suppress(errors.QueueUnavailable, TimeoutError):
            async with asyncio.timeout(LINGER):  # by then Redis has struck them off by itself
                await self._attempts.linger_no_more(self._taken)
        while self._busy and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for running in list(self._runner.running.values()):
            running.stop("the replica stops", Outcome.HANDBACK)
        while self._busy and time.monotonic() < deadline + self._attempts.lease:
            await asyncio.sleep(0.05)
        self._drained.set()

    def _may_claim(self) -> bool:
        """Whether a slot that is taken may have another job."""
        return self._may_take(len(self._taken) - 1)

    def _may_take(self, others: int) -> bool:
        """Whether a slot may have a job beside so many others that are taken."""
        ready = self._engine.usable and not self._draining and not self._runner.closed
        return ready and self._breaker.allows(others=others)

    async def _let_go(self, job_id: str) -> None:
        """Return when the engine no longer works on a job whose request was closed; one that does not let go of it in
        time is killed and started again. A replica that ends has no time for that, and its engine ends with it.
        """

        def others() -> int:
            return sum(item.attempt.id == job_id for item in self._runner.running.values())

        bound = self._release_bound
        gone = await self._engine.runs.let_go(
            job_id, others=others, bound=bound, unless=lambda: self._draining
        )
        if not gone:
            self._engine.kill(f"the engine did not let go of job {job_id} within {bound:g} s and was killed")

    async def _on_ready(self) -> None:
        """The engine can take jobs, for the first time or again."""
        await self._learn()
        await self._show_quietly()
        await self._look_quietly()

    async def _learn(self) -> None:
        """Keep what this load has shown, for when the model is unloaded again."""
        model = self._settings.served[self._place.model]
        learnt = Learnt(
            source=loaded_as(model),
            device=self._place.device,
            at=time.time(),
            load_seconds=self._engine.load_seconds,
            memory_bytes=self._engine.memory(),
            facts=self._engine.facts,
        )
        try:
            async with translated():
                await self._presence.learn(self._place.model, learnt)
        except errors.QueueUnavailable as error:
            log.warning("%s", error.message)

    async def _on_failed(self, why: str) -> None:
        """The model cannot be loaded: what waits for it fails with the engine's last words."""
        await fail_waiting(self._attempts, self._presence, self._place, why)
        await self._show_quietly()

    async def _forever(self, pause: float, step: Callable[[], Awaitable[object]]) -> None:
        """Run a step again and again; the one place where a loop's errors end."""
        while True:
            try:
                await step()
                await asyncio.sleep(pause)
            except errors.InferqError as error:
                log.warning("%s", error.message)
                await asyncio.sleep(1.0)
            except Exception:
                log.exception("a loop of %s failed", self._place.name)
                await asyncio.sleep(1.0)

    async def _look(self) -> None:
        """Work waits and slots are free, but no doorbell came: serve without one. Also look after the callers."""
        if self._may_take(len(self._taken)) and self._busy < self._slots:
            waiting = await self._attempts.waiting()
            waiting -= self._wake_lingering(waiting)
            for _ in range(min(waiting, self._slots - len(self._taken))):
                task = asyncio.create_task(self.serve())
                self._background.add(task)
                task.add_done_callback(self._background.discard)
        running = list(self._runner.running.values())
        await self._writer.check({r.attempt.reply_to for r in running if r.attempt.reply_to})
        for item in running:
            if not item.attempt.job.spec.kept and self._writer.unreachable(item.attempt):
                item.stop("the caller is gone or reads too slowly", Outcome.CANCELLED)

    async def _look_quietly(self) -> None:
        try:
            await self._look()
        except errors.QueueUnavailable as error:
            log.warning("%s", error.message)

    async def _renew(self) -> None:
        await self._renew_these(list(self._runner.running.values()))

    async def _follow_progress(self) -> None:
        """Note how far the longer jobs are, as their engine tells; a change is told to those who follow the job."""
        before = time.monotonic() - PROGRESS_AFTER
        running = {item.attempt.id: item for item in self._runner.running.values() if item.began < before}
        if not running:
            return
        changed = []
        for job_id, share in (await self._engine.runs.progress()).items():
            item = running.get(job_id)
            if item is not None and share != item.progress:
                item.progress = share
                changed.append(item)
        await self._renew_these(changed)

    async def _renew_these(self, running: list[Running]) -> None:
        if not running:
            return
        began = time.monotonic()
        pairs = [(item.attempt.id, item.attempt.token, item.progress) for item in running]
        for item, kept in zip(running, await self._attempts.renew(pairs), strict=True):
            if kept:
                item.renewed = began
            else:
                item.stop("the attempt is no longer trusted")

    async def _watch_lease(self) -> None:
        """By this process's own clock: what cannot be renewed is stopped before somebody else may run it."""
        limit = time.monotonic() - self._attempts.lease * 0.8
        for item in list(self._runner.running.values()):
            if item.renewed < limit:
                item.stop("the lease could not be renewed")

    async def _listen(self) -> None:
        """Wakes, and cancels as they are asked for. A cancel may be old and mean an earlier run of the job: the lease
        tells.
        """
        key = f"{self._prefix}ctl:{self._place.name}"
        async with translated():
            if self._control_cursor is None:
                # What was meant for an earlier process of this name.
                await self._redis.delete(key)
                self._control_cursor = "0-0"
            found: Any = await self._redis.xread({key: self._control_cursor}, count=100, block=BLOCK_MS)
        named = set()
        for entry_id, entry in found[0][1] if found else []:
            self._control_cursor = entry_id.decode()
            if b"wake" in entry:
                self._wake(entry[b"wake"].decode())
            else:
                named.add(entry.get(b"cancel", b"").decode())
        if any(item.attempt.id in named for item in self._runner.running.values()):
            await self._renew()

    def _wake(self, name: str) -> None:
        """Wake the slot of this name; when it cannot take a job any more, ring for any other one."""
        slot = self._taken.get(name)
        if slot and self._may_claim():
            slot.wake()
        else:
            self._signals.ring(self._place.model)

    async def _show(self) -> None:
        engine = self._engine
        info = ReplicaInfo(
            name=self._place.name,
            model=self._place.model,
            device=self._place.device,
            node=self._place.node,
            pid=os.getpid(),
            state=engine.state.value,
            since=engine.since,
            slots=self._slots,
            busy=self._busy,
            engine_pid=engine.pid,
            memory_bytes=engine.memory(),
            load_seconds=engine.load_seconds,
            jobs_done=self._runner.done,
            idle_since=None if self._busy else self._idle_since,
            restarts=engine.restarts,
            draining=self._draining,
            error=engine.error,
            circuit=self._breaker.state.value,
            circuit_left=round(self._breaker.left, 1),
            facts=engine.facts if engine.state is EngineState.READY else {},
        )
        async with translated():
            await self._presence.show_replica(info)

    async def _show_quietly(self) -> None:
        try:
            await self._show()
        except errors.QueueUnavailable as error:
            log.warning("%s", error.message)


def _endings(settings: Settings) -> Endings:
    processing = settings.processing
    policy = RetryPolicy(processing.retry_delay, processing.retry_max_delay, settings.api.wait_timeout)
    return Endings(policy, Breaker(processing.breaker_failures, processing.breaker_delay))


async def fail_waiting(attempts: Attempts, presence: Presence, place: Place, why: str) -> None:
    """Fail what waits for a model that cannot be loaded here, unless a replica elsewhere may run it.

    With Redis away it waits on, for the next try.
    """
    message = f"{place.model} cannot be loaded: {why}"
    failure = Failure(code="engine_load_failed", message=message, status=503)
    try:
        async with translated():
            known = await presence.replicas()
        if any(r.model == place.model and r.name != place.name and r.state in ALIVE for r in known):
            return
        while await attempts.fail_waiting(failure):
            pass
    except errors.QueueUnavailable as error:
        log.warning("%s", error.message)
