"""The life of the process: open what it needs, listen, serve until told to stop, close. Decides nothing of HTTP."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
from collections.abc import AsyncIterator
from importlib import import_module

import uvicorn
from starlette.types import ASGIApp

from api.app import create_app
from api.context import Context
from api.transport import bounded
from inferq import errors
from inferq.config import Settings
from queues import open_gateway
from storage import open_storage
from storage.keys import KeyStore
from storage.ledger import Ledger

log = logging.getLogger("api")

BACKLOG = 2048
KEEP_ALIVE = 75
"""Seconds an idle connection stays open; longer than clients' pools keep theirs, so it is they who close."""

OTHER_FILES = 1024
"""Open files that are left for all else: Redis, the database, the connections of probes, and uploads, of which each
holds one until the form that it comes in is read."""


def allow_connections(wanted: int) -> None:
    """Raise this process' limit of open files so that `wanted` connections fit, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < files:
        most = files if hard == resource.RLIM_INFINITY else min(files, hard)
        # macOS refuses what is beyond a limit that it does not tell.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def most_connections(wanted: int) -> int:
    """As many of the wanted connections as the limit of open files leaves room for; half of it where it is low."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(soft // 2, soft - OTHER_FILES))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError: the address is taken, or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Context]:
    """Storage, queue and all else of one application; closed afterwards. Redis need not be there."""
    storage = await open_storage(settings)
    try:
        gateway = open_gateway(settings, storage)
        await gateway.start()
        try:
            yield Context.build(settings, storage, gateway)
        finally:
            await gateway.stop()
    finally:
        await storage.close()


class Server(uvicorn.Server):
    """Uvicorn without its own signal handling: beside ours it would count one Ctrl-C twice and cut calls off."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


def server_for(app: ASGIApp, settings: Settings) -> Server:
    config = uvicorn.Config(
        app,
        loop="none",
        http=bounded(settings.api.header_timeout, most_connections(settings.api.max_connections)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nobody is trusted for where a request seems to come from.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(settings.processing.drain_timeout)),
    )
    return Server(config)


async def serve(settings: Settings, sock: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then let running calls end within `processing.drain_timeout`."""
    allow_connections(settings.api.max_connections)
    async with opened(settings) as context:
        server = server_for(create_app(context), settings)

        def stop(number: int) -> None:
            context.stopping.set()
            server.handle_exit(number, None)

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        log.info("listening on %s", url_of(sock))
        # What is loaded now lives as long as the process; looking through it again costs every collection.
        gc.collect()
        gc.freeze()
        await server.serve(sockets=[sock])


async def initialise(settings: Settings) -> str | None:
    """Bring the database to the newest schema and see to the first admin key; its text if it was made now."""
    settings.home.mkdir(parents=True, exist_ok=True)
    url = settings.storage.database_url
    # Only here: Alembic would be carried by a process that serves and never migrates.
    await import_module("storage.migrate").upgrade(url, settings.home)
    ledger = await Ledger.open(url, settings.home)
    try:
        return await KeyStore(ledger.database).ensure_admin(settings.home / "admin.key")
    except OSError as error:
        raise errors.StoreUnavailable(
            f"cannot write {settings.home / 'admin.key'}: {error.strerror}"
        ) from error
    finally:
        await ledger.close()
