"""`python -m queues`: the scheduler; with a flag the embedded Redis server or Flower instead."""

import asyncio
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from inferq import errors, process
from inferq.config import Settings
from queues import embedded
from queues.scheduler import Scheduler
from storage import open_storage


async def _schedule(settings: Settings, stopping: asyncio.Event) -> None:
    storage = await open_storage(settings)
    try:
        await Scheduler(settings, storage).run(stopping)
    finally:
        await storage.close()


def main(argv: Sequence[str] | None = None) -> int:
    parser = process.parser("queues", "Recorder, reaper, reconciler and placement. Run two for failover.")
    parser.add_argument(
        "--embedded-redis", action="store_true", help="become the embedded Redis server instead"
    )
    parser.add_argument("--flower", action="store_true", help="become Flower, the queue inspector, instead")
    arguments = parser.parse_args(argv)
    try:
        settings = process.settings_of(arguments)
        if arguments.embedded_redis:
            server = embedded.server_argv(settings.home, settings.run_dir)
            os.execv(server[0], server)  # noqa: S606 - it becomes the server
        if arguments.flower:
            # Only here: Flower brings a web server that the scheduler must not carry.
            return int(import_module("queues.flower").run(settings))
    except errors.ConfigError as error:
        return process.fail(error.message, 2)
    process.configure_logging(settings)
    return process.run_until_signal(lambda stopping: _schedule(settings, stopping))


if __name__ == "__main__":
    sys.exit(main())
