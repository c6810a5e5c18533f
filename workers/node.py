"""The node agent: tells what this host has, and starts and stops replicas as placement wants.

Replicas run in sessions of their own. When the agent is killed they go on serving, and the next agent adopts them by
their records; only a stop of the agent ends them.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from inferq import errors, failpoints, process
from inferq.config import Settings
from inferq.scheduling.placement import Place
from queues.connection import Client, connect, translated
from queues.desired import read_desired
from queues.presence import NodeInfo, Presence, ReplicaInfo
from workers import devices

log = logging.getLogger(__name__)

PASS_EVERY = 1.0
SHOW_EVERY = 3.0
KILL_AFTER = 15.0
"""Seconds beyond the drain budget after which a stopping replica is killed."""
PAUSES = (0.0, 1.0, 3.0, 10.0, 30.0)
"""Seconds before a replica is started again, by how often it has died without having been ready between.

One that was ready was killed from outside, or by its work: it is missed, and starting it is known to help. What loads
and dies again and again is slowed down by its loads, as engines are.
"""
READY = "ready"
PROGRAM = (sys.executable, "-m", "workers")


class NodeAgent:
    """`config` is the configuration file where a flag named it: the replicas are told too."""

    def __init__(self, settings: Settings, *, config: Path | None = None):
        self._settings = settings
        self._config = config
        self._name = socket.gethostname()
        self._prefix = settings.queue.prefix
        self._redis: Client = connect(settings, connections=8)
        self._presence = Presence(self._redis, self._prefix)
        self._replicas: dict[str, psutil.Process] = {}
        self._stopping: dict[str, float] = {}
        self._deaths: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Converge until `stopping`, then stop all replicas of this node."""
        self._find()
        tasks = [
            asyncio.create_task(self._forever(SHOW_EVERY, self._show)),
            asyncio.create_task(self._forever(PASS_EVERY, self._converge)),
        ]
        try:
            await stopping.wait()
        finally:
            await process.end_tasks(tasks)
        await self._stop_all()
        try:
            async with translated():
                await self._presence.hide("node", self._name)
        except errors.QueueUnavailable:
            log.info("Redis is away; this node's record lapses by itself")
        await self._redis.aclose()

    async def _forever(self, pause: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except errors.InferqError as error:
                log.warning("%s", error.message)
            except Exception:
                log.exception("a pass of the node agent failed")
            await asyncio.sleep(pause)

    async def _show(self) -> None:
        memory = psutil.virtual_memory()
        info = NodeInfo(
            name=self._name,
            pid=os.getpid(),
            seen_at=time.time(),
            cpu_percent=psutil.cpu_percent(),
            memory_total=memory.total,
            memory_used=memory.total - memory.available,
            devices=await asyncio.to_thread(devices.detect, self._settings),
        )
        async with translated():
            await self._presence.show_node(info)

    async def _converge(self) -> None:
        """One pass: adopt what runs, bury what died, start what lacks, stop what is too much."""
        await self._adopt()
        self._bury()
        wanted = await read_desired(self._redis, self._prefix, self._name)
        if wanted is None:
            return
        names = {place.name for place in wanted}
        for place in wanted:
            if place.name not in self._replicas and time.monotonic() >= self._not_before.get(place.name, 0.0):
                try:
                    self._start(place)
                except OSError as error:  # the others can be started all the same
                    self._try_later(place.name, f"cannot be started: {error}")
        for name in set(self._replicas) - names:
            self._stop(name)

    def _find(self) -> None:
        """Adopt what an earlier agent started here and what may have no record yet, by the command lines."""
        for found in psutil.process_iter():
            try:
                argv = found.cmdline()
            except psutil.Error:
                continue
            if "--replica" in argv[:-1] and _home_of(argv) == str(self._settings.home):
                self._take(argv[argv.index("--replica") + 1], found)

    async def _adopt(self) -> None:
        async with translated():
            records = await self._presence.replicas()
        for record in records:
            if record.node != self._name:
                continue
            mine = self._replicas.get(record.name)
            if mine is None:
                self._adopt_one(record)
            elif mine.pid == record.pid and record.state == READY:
                self._deaths.pop(record.name, None)

    def _adopt_one(self, record: ReplicaInfo) -> None:
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(record.pid)
            if record.name in found.cmdline():
                self._take(record.name, found)

    def _take(self, name: str, found: psutil.Process) -> None:
        self._replicas[name] = found
        log.info("adopted %s (pid %d)", name, found.pid)

    def _bury(self) -> None:
        for name, child in list(self._replicas.items()):
            if _alive(child):
                self._deaths[name] = (
                    0 if time.time() - child.create_time() > 60 else self._deaths.get(name, 0)
                )
                continue
            _reap(child)
            del self._replicas[name]
            if self._stopping.pop(name, None) is None:
                self._try_later(name, "died")

    def _try_later(self, name: str, why: str) -> None:
        deaths = self._deaths[name] = self._deaths.get(name, 0) + 1
        pause = PAUSES[min(deaths - 1, len(PAUSES) - 1)]
        self._not_before[name] = time.monotonic() + pause
        log.error("%s %s; it is started again in %.0f s", name, why, pause)

    def command(self, place: Place) -> list[str]:
        """The command line of a replica."""
        where = ["--home", str(self._settings.home)]
        if self._config:
            where += ["--config", str(self._config)]
        what = ["--replica", place.name, "--model", place.model, "--device", place.device]
        return [*PROGRAM, *what, *where]

    def _start(self, place: Place) -> None:
        logs = self._settings.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"replica-{place.file_name}.log").open("ab") as output:
            child = psutil.Popen(
                self.command(place),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        failpoints.reach("node.started")
        self._replicas[place.name] = child
        log.info("started %s (pid %d)", place.name, child.pid)

    def _stop(self, name: str) -> None:
        """Ask a replica to drain; kill it when it takes longer than its budget."""
        began = self._stopping.get(name)
        try:
            if began is None:
                self._stopping[name] = time.monotonic()
                self._replicas[name].send_signal(signal.SIGTERM)
                log.info("stopping %s", name)
            elif time.monotonic() - began > self._settings.processing.drain_timeout + KILL_AFTER:
                self._replicas[name].kill()
        except psutil.NoSuchProcess:
            return

    async def _stop_all(self) -> None:
        while self._replicas:
            for name in list(self._replicas):
                self._stop(name)
            await asyncio.sleep(0.1)
            self._bury()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _reap(process: psutil.Process) -> None:
    """Collect a dead child; an adopted one is not ours to collect."""
    with contextlib.suppress(psutil.Error, ChildProcessError):
        process.wait(0)


def _home_of(argv: list[str]) -> str | None:
    return argv[argv.index("--home") + 1] if "--home" in argv[:-1] else None
