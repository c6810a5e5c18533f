"""Sound files of a request as samples: 16-bit mono at 16 kHz, mapped from a file where they are long.

Owns the decoder children. A plain wav file in the right form is read here after a strict look at its header; every
other file goes to a child. A child that dies, hangs or breaks a limit is replaced, and the file is refused.
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

from workers.engines.failures import BadRequest
from workers.engines.recognition.decoder import RATE

SMALL_BYTES = 8 * 1024 * 1024
WAV_HEADER = 44
Samples = Any


@dataclass(frozen=True)
class Limits:
    seconds: float
    channels: int
    patience_s: float


@dataclass(frozen=True)
class Sound:
    """`samples` is an int16 array at 16 kHz."""

    samples: Samples

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    def piece(self, start: int, end: int) -> Samples:
        """Samples `start` to `end` as float32 in [-1, 1)."""
        return self.samples[start:end].astype(np.float32) / np.float32(32768)


class Child:
    """One decoder process. Not to be used by two threads at once."""

    def __init__(self) -> None:
        self._process = self._start()
        self._changing = threading.Lock()

    def _start(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "workers.engines.recognition.decoder"]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
        )

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
    """A few children and who may use them."""

    def __init__(self, children: int, limits: Limits) -> None:
        self.limits = limits
        self._children = [Child() for _ in range(children)]
        self._free: asyncio.Queue[Child] | None = None

    def stop(self) -> None:
        for child in self._children:
            child.end()

    async def open(self, path: Path, param: str) -> Sound:
        """The sound in the file. Raises BadRequest for everything that is wrong with it."""
        plain = await asyncio.to_thread(plain_wav, path)
        if plain is None:
            plain = await self._decode(path, param)
        sound = Sound(plain)
        if sound.seconds > self.limits.seconds:
            raise refused(param, f"lasts {sound.seconds:.0f} seconds; the limit is {self.limits.seconds:.0f}")
        return sound

    async def _decode(self, path: Path, param: str) -> Samples:
        if self._free is None:
            self._free = asyncio.Queue()
            for each in self._children:
                self._free.put_nowait(each)
        child = await self._free.get()
        handle, name = tempfile.mkstemp(prefix="inferq-sound-")
        os.close(handle)
        order: dict[str, Any] = {"path": str(path), "out": name}
        order |= {"max_seconds": self.limits.seconds, "max_channels": self.limits.channels}
        try:
            answer = await self._patiently(child, order)
            if answer is None:
                raise refused(param, "broke the limits on decoding")
            if "error" in answer:
                raise refused(param, str(answer["error"]))
            return await asyncio.to_thread(load, Path(name), 0, int(answer["samples"]))
        finally:
            os.unlink(name)
            self._free.put_nowait(child)

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


def refused(param: str, reason: str) -> BadRequest:
    return BadRequest(f"The file {reason}.", param=param, code="invalid_audio")


def load(path: Path, offset: int, count: int) -> Samples:
    """Samples of a file: read when short, mapped when long, so that hours need no memory of their own."""
    if count == 0:
        return np.zeros(0, np.int16)
    if count * 2 <= SMALL_BYTES:
        return np.fromfile(path, "<i2", count, offset=offset)
    return np.memmap(path, "<i2", mode="r", offset=offset, shape=(count,))


def plain_wav(path: Path) -> Samples | None:
    """The samples of a wav file that is exactly in our form with the simplest header; None for every other file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(WAV_HEADER)
    if len(header) < WAV_HEADER or header[:4] != b"RIFF" or header[8:16] != b"WAVEfmt ":
        return None
    form = [int.from_bytes(header[at:end], "little") for at, end in FORM_FIELDS]
    if form != [16, 1, 1, RATE, RATE * 2, 2, 16] or header[36:40] != b"data":
        return None
    stated = int.from_bytes(header[40:44], "little")
    if stated % 2 or stated != size - WAV_HEADER:
        return None
    return load(path, WAV_HEADER, stated // 2)


# Length of the block, encoding (1: PCM), channels, rate, bytes a second, bytes a frame, bits.
FORM_FIELDS = ((16, 20), (20, 22), (22, 24), (24, 28), (28, 32), (32, 34), (34, 36))
