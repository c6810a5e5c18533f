"""The decoder children and who may use them: files as samples, mapped from a file where they are long.

A child that dies, hangs or breaks a limit is replaced, and the file is refused. Must not know what a sound is for.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers.engines.sounds.decoder import Unreadable

SMALL_BYTES = 8 * 1024 * 1024
Samples = Any


@dataclass(frozen=True)
class Limits:
    seconds: float
    channels: int
    patience_s: float


class Child:
    """One decoder process. Not to be used by two threads at once."""

    def __init__(self) -> None:
        self._process = self._start()
        self._changing = threading.Lock()

    def _start(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "workers.engines.sounds.decoder"]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
        )
        # Taken note of when it ends: one that is killed while it has nothing to do would stay as a zombie.
        threading.Thread(target=process.wait, name=f"decoder {process.pid}", daemon=True).start()
        return process

    def ask(self, order: dict[str, Any], left: threading.Event) -> dict[str, Any] | None:
        """Its answer; None when it died, which includes being killed by `end`, and when nobody waits any more.

        Whoever sets `left` ends the child after that: so a call that begins late starts no new one for nobody.
        """
        with self._changing:
            if left.is_set():
                return None
            if self._process.poll() is not None:
                self._process = self._start()
            process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(order) + "\n")
            line = process.stdout.readline()
        except OSError:
            line = ""
        if line:
            return dict(json.loads(line))
        self.end()
        return None

    def end(self) -> None:
        with self._changing:
            self._process.kill()
            self._process.wait()


class Decoders:
    """A few children and who may use them. Sound comes at `rate` hertz."""

    def __init__(self, children: int, limits: Limits, rate: int) -> None:
        self.limits, self.rate = limits, rate
        self._children = [Child() for _ in range(children)]
        self._free: asyncio.Queue[Child] | None = None

    def stop(self) -> None:
        for child in self._children:
            child.end()

    async def samples(self, path: Path) -> Samples:
        """The sound in the file: int16, mono. Raises Unreadable for everything that is wrong with it."""
        if self._free is None:
            self._free = asyncio.Queue()
            for each in self._children:
                self._free.put_nowait(each)
        child = await self._free.get()
        try:
            return await self._decoded(child, path)
        finally:
            self._free.put_nowait(child)

    async def _decoded(self, child: Child, path: Path) -> Samples:
        with tempfile.NamedTemporaryFile(prefix="inferq-sound-") as file:
            order: dict[str, Any] = {"path": str(path), "out": file.name, "rate": self.rate}
            order |= {"max_seconds": self.limits.seconds, "max_channels": self.limits.channels}
            answer = await self._patiently(child, order)
            if answer is None:
                raise Unreadable("broke the limits on decoding")
            if "error" in answer:
                raise Unreadable(str(answer["error"]))
            return await asyncio.to_thread(load, Path(file.name), 0, int(answer["samples"]))

    async def _patiently(self, child: Child, order: dict[str, Any]) -> dict[str, Any] | None:
        """Ask, but no longer than the limit; a caller who leaves also ends the child."""
        left = threading.Event()
        work = asyncio.ensure_future(asyncio.to_thread(child.ask, order, left))
        try:
            return await asyncio.wait_for(asyncio.shield(work), self.limits.patience_s)
        except (TimeoutError, asyncio.CancelledError) as error:
            left.set()
            child.end()
            await work
            if isinstance(error, TimeoutError):
                return None
            raise


def load(path: Path, offset: int, count: int) -> Samples:
    """Samples of a file: read when short, mapped when long, so that hours need no memory of their own."""
    if count == 0:
        return np.zeros(0, np.int16)
    if count * 2 <= SMALL_BYTES:
        return np.fromfile(path, "<i2", count, offset=offset)
    return np.memmap(path, "<i2", mode="r", offset=offset, shape=(count,))
