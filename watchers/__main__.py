"""`python -m watchers`: job files in, results out. Wires the parts together and does nothing else."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence

from inferq import errors, process
from inferq.config import Settings
from queues import open_gateway
from storage import Storage, open_storage
from watchers.complaints import Complaints
from watchers.folders import Folders
from watchers.service import FIRST_PAUSE, LONGEST_PAUSE, Watcher

log = logging.getLogger(__name__)

HANDOVER = 3.0
"""Seconds to wait for a predecessor that is stopping."""


async def _watch(settings: Settings, stopping: asyncio.Event) -> None:
    folders = Folders.of(settings)
    folders.prepare()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(os.close, await _lock(folders, stopping))
        storage = await _open(settings, stopping)
        if storage is None:
            return
        stack.push_async_callback(storage.close)
        gateway = open_gateway(settings, storage)
        await gateway.start(replies=False)
        stack.push_async_callback(gateway.stop)
        await Watcher(settings, folders, storage, gateway).run(stopping)


async def _lock(folders: Folders, stopping: asyncio.Event) -> int:
    deadline = time.monotonic() + HANDOVER
    while (descriptor := folders.lock()) is None:
        if stopping.is_set() or time.monotonic() > deadline:
            raise errors.ConfigError(f"another watcher works on {folders.inbox}")
        await asyncio.sleep(0.1)
    return descriptor


async def _open(settings: Settings, stopping: asyncio.Event) -> Storage | None:
    """The stores, as soon as they can be opened; None when the process shall stop before."""
    complaints, pause = Complaints(log), FIRST_PAUSE
    while not stopping.is_set():
        try:
            storage = await open_storage(settings)
        except errors.StoreUnavailable as error:
            complaints.tell("opening the job store", error.message)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        else:
            complaints.settle("opening the job store")
            return storage
    return None


def main(argv: Sequence[str] | None = None) -> int:
    parser = process.parser(
        "watchers", "Job files dropped into the watched directory become jobs, and results files."
    )
    arguments = parser.parse_args(argv)
    try:
        settings = process.settings_of(arguments)
    except errors.ConfigError as error:
        return process.fail(error.message, 2)
    process.configure_logging(settings)
    return process.run_until_signal(lambda stopping: _watch(settings, stopping))


if __name__ == "__main__":
    sys.exit(main())
