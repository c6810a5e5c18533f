"""One engine as a child process: five states, one writer.

    stopped ──start──► starting ──healthy──► ready ──exit, hang──► starting (after a pause)
                          │  ▲
               3 failures ▼  │ longer pause
                        failed                     any ──stop──► stopping ──► stopped

Only `run` changes the state. The child lies behind a shim that kills all its descendants when this process is gone.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from inferq import shim
from inferq.engine import Engine, Launch, MediaForm
from workers.engine_runs import EngineRuns
from workers.facts import facts_of

log = logging.getLogger(__name__)

FAILURES = 3
"""Failed starts in a row after which the model's waiting jobs are failed."""
PAUSES = (0.5, 2.0, 5.0, 15.0, 30.0, 60.0)
HEALTH_EVERY = 5.0
HEALTH_TIMEOUT = 10.0
HEALTH_FAILURES = 6
LONGEST_HEALTH = 256 * 1024
"""Bytes that are read of what an engine says of itself."""
STOP_GRACE = 10
DIED_WITHIN = 1.0
KEEP_ALIVE = 2.0
"""Seconds for which an idle connection is used again; less than any server keeps one (vLLM: 5)."""


class EngineState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


class EngineProcess:
    """Keeps one engine running. `session` speaks to it while it is ready; `restarts` counts its further starts.

    `facts` are what the engine said of its model when it became ready.
    """

    def __init__(
        self,
        engine: Engine,
        launch: Launch,
        *,
        env: Mapping[str, str],
        run_dir: Path,
        log_file: Path,
        load_timeout: float,
        nice: int,
        on_ready: Callable[[], Awaitable[None]],
        on_failed: Callable[[str], Awaitable[None]],
    ):
        self.state = EngineState.STOPPED
        self.since = time.time()
        self.pid: int | None = None
        self.load_seconds: float | None = None
        self.restarts = 0
        self.error: str | None = None
        self.session: aiohttp.ClientSession | None = None
        self.facts: dict[str, Any] = {}
        self.runs = EngineRuns(lambda: self.session)
        self._engine = engine
        self._launch = launch
        self._env = dict(env)
        self._run_dir = run_dir
        self._log_file = log_file
        self._load_timeout = load_timeout
        self._nice = nice
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._child: asyncio.subprocess.Process | None = None
        self._lifeline: int | None = None
        self._folder: Path | None = None
        self._stopping = asyncio.Event()
        self._doubted = asyncio.Event()
        self._condemned: str | None = None
        self._kill = asyncio.Event()

    @property
    def media(self) -> MediaForm:
        """How this engine wants the files of a request."""
        return self._engine.media

    @property
    def usable(self) -> bool:
        """Ready, and nothing speaks against it."""
        return self.state is EngineState.READY and not self._doubted.is_set() and self._condemned is None

    async def run(self) -> None:
        """Start the engine, watch it, start it again; until `stop`. The only writer of the state."""
        failures = 0
        while not self._stopping.is_set():
            loaded = await self._live_once()
            if self._stopping.is_set():
                break
            failures = 0 if loaded else failures + 1
            self.restarts += 1
            if failures >= FAILURES:
                self._become(EngineState.FAILED)
                await self._on_failed(self.error or "the engine does not start")
            pause = PAUSES[min(failures, len(PAUSES) - 1)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
        self._become(EngineState.STOPPED)

    def stop(self) -> None:
        """Ask `run` to end the engine and itself."""
        self._stopping.set()

    def doubt(self) -> None:
        """A call broke off or took too long: the engine is not usable until it has shown that it is well."""
        self._doubted.set()

    async def died(self, session: object) -> bool:
        """Whether the life of the engine ended in which this was its session; asked when a call of it was cut off,
        which is mostly before the end of the process is seen. False when that is not known within a second.
        """
        self.doubt()
        deadline = time.monotonic() + DIED_WITHIN
        while self.session is session and self.state is EngineState.READY:
            if not self._doubted.is_set() or time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    def kill(self, why: str) -> None:
        """End this life of the engine, whatever it does; another one begins. The first reason counts."""
        if self.state is EngineState.READY and self._condemned is None:
            self._condemned = why
            self._kill.set()

    def memory(self) -> int | None:
        """Resident bytes of the engine and its descendants."""
        if self.pid is None:
            return None
        try:
            top = psutil.Process(self.pid)
            return int(sum(p.memory_info().rss for p in [top, *top.children(recursive=True)]))
        except psutil.Error:
            return None

    async def _live_once(self) -> bool:
        """One life of the child; True when it was ready once. Whatever goes wrong is a failure of this life."""
        try:
            return await self._live()
        except Exception as error:
            log.exception("the engine cannot be kept")
            self.error = f"the engine cannot be started: {type(error).__name__}: {error}"
            return False
        finally:
            await self._end_child()

    async def _live(self) -> bool:
        self._become(EngineState.STARTING)
        async with self._device_lock():
            # Waiting for the device is no part of loading.
            began = time.monotonic()
            if self._stopping.is_set() or not await self._spawn():
                return False
            if not await self._until_healthy(began):
                return False
        self.load_seconds = time.monotonic() - began
        self.error = None
        self.facts = await self._ask_facts()
        self._doubted.clear()
        self._condemned = None
        self._kill.clear()
        self._become(EngineState.READY)
        log.info("the engine is ready after %.1f s", self.load_seconds)
        await self._on_ready()
        await self._watch()
        if not self._stopping.is_set():
            self.error = self._condemned or f"the engine ended{self._status()}: {self._last_words()}"
            log.error("%s", self.error)
        return True

    async def _spawn(self) -> bool:
        self._sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=f"e-{os.getpid()}-", dir=self._run_dir))
        launch = replace(self._launch, socket=self._folder / "s")
        command = self._engine.command(launch)
        read_end, self._lifeline = os.pipe()
        argv = shim.wrap(list(command.argv), lifeline_fd=read_end, grace=STOP_GRACE, nice=self._nice)
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            # What the engine said before it ended is often the only trace of why.
            self._log_file.replace(self._log_file.with_suffix(".log.1"))
        try:
            with self._log_file.open("wb") as output:
                self._child = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **command.env, **self._env},
                    pass_fds=(read_end,),
                )
        except OSError as error:
            self.error = f"cannot start {command.argv[0]}: {error.strerror}"
            return False
        finally:
            os.close(read_end)
        self.pid = self._child.pid
        connector = aiohttp.UnixConnector(path=str(launch.socket), limit=0, keepalive_timeout=KEEP_ALIVE)
        self.session = aiohttp.ClientSession(
            "http://engine",
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        return True

    async def _until_healthy(self, began: float) -> bool:
        assert self._child is not None
        while time.monotonic() - began < self._load_timeout:
            if self._child.returncode is not None:
                self.error = f"the engine did not start{self._status()}: {self._last_words()}"
                log.error("%s", self.error)
                return False
            if self._stopping.is_set():
                return False
            if await self._healthy():
                return True
            await asyncio.sleep(0.1)
        self.error = f"the engine was not ready within {self._load_timeout:.0f} s: {self._last_words()}"
        log.error("%s", self.error)
        return False

    async def _healthy(self) -> bool:
        assert self.session is not None
        try:
            timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT)
            async with self.session.get(self._engine.health, timeout=timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _ask_facts(self) -> dict[str, Any]:
        """What the engine says of its model; an engine of somebody else's need not say anything."""
        assert self.session is not None
        try:
            timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT)
            async with self.session.get(self._engine.health, timeout=timeout) as response:
                said = b"".join([part async for part in _bounded(response.content)])
        except (aiohttp.ClientError, TimeoutError, OSError):
            return {}
        return facts_of(said)

    async def _watch(self) -> None:
        """Return when the child has ended, hangs, is to be killed, or a stop is asked for."""
        assert self._child is not None
        ended = asyncio.create_task(self._child.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        killed = asyncio.create_task(self._kill.wait())
        bad = 0
        try:
            while bad < HEALTH_FAILURES:
                if await self._first_of(ended, stopping, killed, doubts=bad == 0):
                    return
                bad = 0 if await self._healthy() else bad + 1
                if bad == 0 and self._doubted.is_set():
                    self._doubted.clear()
                    await self._on_ready()
            log.error("the engine has not answered %d health checks; it is killed", HEALTH_FAILURES)
        finally:
            for task in (ended, stopping, killed):
                task.cancel()

    async def _first_of(self, *ends: "asyncio.Task[Any]", doubts: bool) -> bool:
        """Wait for one of these ends, and return True; for the next health check, or the first doubt: False."""
        doubted = asyncio.create_task(self._doubted.wait())
        waited = {*ends, doubted} if doubts else set(ends)
        done, _ = await asyncio.wait(waited, timeout=HEALTH_EVERY, return_when=asyncio.FIRST_COMPLETED)
        doubted.cancel()
        return any(end in done for end in ends)

    async def _end_child(self) -> None:
        self._become(EngineState.STOPPING if self._stopping.is_set() else EngineState.STARTING)
        if self.session:
            await self.session.close()
            self.session = None
        if self._child and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.terminate()
            await self._child.wait()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        self.pid = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def _device_lock(self) -> AsyncIterator[None]:
        """One load per device at a time, whoever starts it."""
        name = self._launch.device.replace(":", "-")
        self._run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._run_dir / f"load-{name}.lock").open("w") as file:
            while not self._stopping.is_set():
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.1)
            yield

    def _become(self, state: EngineState) -> None:
        if state is not self.state:
            self.state, self.since = state, time.time()

    def _status(self) -> str:
        code = self._child.returncode if self._child else None
        return "" if code is None else f" (status {code})"

    def _sweep(self) -> None:
        """A replica that was killed could not remove its engine's folder; its process id is in the name."""
        for folder in self._run_dir.glob("e-*"):
            owner = folder.name.split("-")[1]
            if owner.isdigit() and not psutil.pid_exists(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)

    def _last_words(self) -> str:
        """The last line that the engine wrote."""
        try:
            with self._log_file.open("rb") as file:
                file.seek(max(self._log_file.stat().st_size - 4000, 0))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return "no log"
        return lines[-1].strip()[:500] if lines else "it said nothing"


async def _bounded(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The beginning of a body."""
    left = LONGEST_HEALTH
    while left > 0 and (part := await content.read(left)):
        left -= len(part)
        yield part
