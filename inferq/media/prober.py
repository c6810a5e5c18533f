"""Looks into files by way of child processes (`inferq.media.probe`), so that no library meets a hostile file in here.

A child that dies, hangs or says nonsense costs the file it was looking at, and nothing else: it is replaced. It must
not know where files come from, nor what is allowed.
"""

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Self

from inferq import errors
from inferq.media import facts
from inferq.media.facts import Facts
from inferq.media.turns import Turns

CHILDREN = 2
FILE_SECONDS = 5.0
"""Longest look into one file, by the clock on the wall."""
START_SECONDS = 30.0
"""Longest start of a child: a cold disk has two libraries to give."""
FILES_PER_CHILD = 1000
"""Then it is replaced, so that what libraries leak stays small."""

_PROGRAM = Path(facts.__file__).with_name("probe.py")
_KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""All that a child gets of our environment, which holds keys."""


class Prober:
    """Starts children when they are needed. `close` it."""

    def __init__(self, children: int = CHILDREN, seconds: float = FILE_SECONDS) -> None:
        self._seconds = seconds
        self._turns = Turns(children)
        self._idle: list[_Child] = []
        self._probing: set[asyncio.Task[Facts]] = set()

    async def probe(self, path: Path, tenant: str = "") -> Facts:
        """Facts about a file, `error` among them. Tenants take turns.

        Raises Unavailable when no child can be started.
        """
        # A task of its own: a caller who leaves must not leave a child behind with half a conversation.
        task = asyncio.create_task(self._probe(path, tenant))
        self._probing.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End all children, and with them all probes under way."""
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)
        await asyncio.gather(*(child.kill() for child in self._idle))
        self._idle.clear()

    async def _probe(self, path: Path, tenant: str) -> Facts:
        async with self._turns.turn(tenant):
            child = await self._child()
            try:
                async with asyncio.timeout(self._seconds):
                    found = await child.ask(path)
            except TimeoutError:
                await child.kill()
                return Facts(error=f"looking into it took longer than {self._seconds:g} s", slow=True)
            except (OSError, EOFError, ValueError, TypeError):
                await child.kill()
                return Facts(error="it is damaged")
            except BaseException:
                await asyncio.shield(child.kill())
                raise
            if child.asked < FILES_PER_CHILD:
                self._idle.append(child)
            else:
                await child.kill()
            return found

    async def _child(self) -> "_Child":
        while self._idle:
            child = self._idle.pop()
            if child.process.returncode is None:
                return child
        return await _Child.start()

    def _ended(self, task: "asyncio.Task[Facts]") -> None:
        self._probing.discard(task)
        # Its caller may have left: then nobody else takes the exception.
        if not task.cancelled():
            task.exception()


class _Child:
    def __init__(self, process: Process) -> None:
        self.process = process
        self.asked = 0

    @classmethod
    async def start(cls) -> Self:
        child = cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(_PROGRAM)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                # Ctrl-C at a terminal is for the owner, who ends the child when he is done.
                start_new_session=True,
            )
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await child._line()
        except TimeoutError:
            ready = b""
        except BaseException:
            await asyncio.shield(child.kill())
            raise
        if ready != b"ready\n":
            await child.kill()
            raise errors.Unavailable("Files cannot be looked into: the process that does so does not start.")
        return child

    async def ask(self, path: Path) -> Facts:
        """Raises what a dead or confused child leads to: OSError, EOFError, ValueError, TypeError."""
        assert self.process.stdin is not None
        self.asked += 1
        self.process.stdin.write(json.dumps(str(path)).encode() + b"\n")
        await self.process.stdin.drain()
        line = await self._line()
        if not line.endswith(b"\n"):
            raise EOFError
        return Facts(**json.loads(line))

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def _line(self) -> bytes:
        assert self.process.stdout is not None
        return await self.process.stdout.readline()
