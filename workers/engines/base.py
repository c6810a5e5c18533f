"""The life of an engine process: start, load, serve, stop.

An engine gives `load`, `routes` and `unload`; everything around them is here. Loading runs in a thread, so
`/health` answers 503 meanwhile. Must not know any kind of model.

Exit status: 0 stopped as asked, 2 wrong arguments, 3 the model could not be loaded, 4 the engine failed for
good. In the last two cases the last line on stderr says why.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import uvicorn

from workers.engines.asgi import EngineApp, Handler
from workers.engines.launch import Launch, parse

log = logging.getLogger("inferq.engine")

EXIT_LOAD = 3
EXIT_FATAL = 4


class Engine(ABC):
    """What one kind of engine adds to the base."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        self.launch = launch
        self.app = app
        self.give_up: Callable[[str], None] = lambda reason: None

    @abstractmethod
    def load(self) -> None:
        """Bring the weights into memory. Runs in a thread; what it raises ends the process."""

    @abstractmethod
    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """The handlers by method and path. Called on the event loop, after `load`."""

    def unload(self) -> None:
        """Release what `load` took. Called once, when no request runs any more."""

    def details(self) -> Mapping[str, Any]:
        """Facts of this engine for `/health`."""
        return {}


class EngineServer(uvicorn.Server):
    """uvicorn that stops on SIGTERM with status 0, instead of ending by re-raising the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        # A second signal means now: connections that are still open are cut.
        self.force_exit = self.should_exit
        self.should_exit = True


class EngineProcess:
    """One engine and its server, until the process ends."""

    def __init__(self, engine_type: Callable[[Launch, EngineApp], Engine], launch: Launch) -> None:
        self.launch = launch
        self.app = EngineApp(launch.served_name)
        self.engine = engine_type(launch, self.app)
        self.engine.give_up = self._give_up
        self.loaded = False
        self.exit_code = 0
        self.last_words = ""
        grace = max(1, round(launch.grace_s))
        config = uvicorn.Config(
            self.app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            date_header=False,
            timeout_keep_alive=3600,
            timeout_graceful_shutdown=grace,
        )
        self.server = EngineServer(config)

    async def run(self) -> None:
        listener = listen(self.launch)
        inode = os.stat(self.launch.uds).st_ino if self.launch.uds is not None else 0
        loading = asyncio.create_task(self._load())
        try:
            await self.server.serve(sockets=[listener])
        finally:
            self.app.status = "stopping"
            loading.cancel()
            listener.close()
            remove_own(self.launch.uds, inode)
        if self.loaded:
            await asyncio.to_thread(self.engine.unload)

    async def _load(self) -> None:
        try:
            await asyncio.to_thread(self.engine.load)
            self.app.routes = self.engine.routes()
        except Exception as error:
            log.debug("load failed", exc_info=True)
            self._end(EXIT_LOAD, f"cannot load {self.launch.model}: {type(error).__name__}: {error}")
            return
        self.loaded = True
        self.app.details = self.engine.details
        self.app.status = "ready"

    def _give_up(self, reason: str) -> None:
        """The engine can never answer again. While it is stopping that is no news."""
        if not self.server.should_exit:
            self._end(EXIT_FATAL, f"engine failed: {reason}")

    def _end(self, code: int, words: str) -> None:
        self.app.status = "failed"
        self.exit_code, self.last_words = code, " ".join(words.split())
        self.server.should_exit = True


def listen(launch: Launch) -> socket.socket:
    """The listening socket; a unix socket is readable by this user only."""
    if launch.uds is None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((launch.host, launch.port or 0))
    else:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(launch.uds):
            os.unlink(launch.uds)
        before = os.umask(0o177)
        try:
            listener.bind(launch.uds)
        finally:
            os.umask(before)
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def remove_own(path: str | None, inode: int) -> None:
    """Remove the socket file, unless a successor has put its own there."""
    if path is not None and os.path.exists(path) and os.stat(path).st_ino == inode:
        os.unlink(path)


def main(
    engine_type: Callable[[Launch, EngineApp], Engine], program: str, argv: Sequence[str] | None = None
) -> NoReturn:
    """Run the engine and end the process."""
    launch = parse(argv, program)
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        process = EngineProcess(engine_type, launch)
    except ValueError as error:
        fail(2, str(error))
    factory = process.server.config.get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as loop:
        loop.run(process.run())
        # Inside the block: closing the loop would wait for a thread that still loads.
        if process.exit_code:
            fail(process.exit_code, process.last_words)
        leave(0)


def fail(code: int, words: str) -> NoReturn:
    print(f"inferq engine: {words}", file=sys.stderr)
    leave(code)


def leave(code: int) -> NoReturn:
    """End at once: threads of a library that hang must not keep the memory of a stopped engine."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
