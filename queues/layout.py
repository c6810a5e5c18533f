"""The version of the keys in Redis: a process that finds another one touches nothing and stops with a clear word.

The scripts compare it at each call, so nothing is ever mixed. `check` is for the start; `watch` ends a process under
which the keys have changed (a Redis of another installation behind the same address, a restored backup).
"""

import asyncio
import logging
import signal

from inferq import errors
from inferq.config.sections import Queue
from queues.connection import Client, translated
from queues.scripts import layout_of

log = logging.getLogger(__name__)

WATCH_EVERY = 5.0


def key_of(prefix: str) -> str:
    return f"{prefix}layout"


async def claim(redis: Client, queue: Queue) -> bool:
    """Write the version where there is none; True when there was none: Redis is new, or has lost its memory.

    Raises ConfigError for another version, QueueUnavailable.
    """
    # A full Redis refuses SET, whatever NX says: it is asked only where there is something to write.
    if await check(redis, queue):
        return False
    async with translated():
        fresh = bool(await redis.set(key_of(queue.prefix), layout_of(queue), nx=True))
    if not fresh:
        await check(redis, queue)
    return fresh


async def check(redis: Client, queue: Queue) -> bool:
    """Whether the keys have a version. Raises ConfigError when they are of another one, QueueUnavailable."""
    async with translated():
        found = await redis.get(key_of(queue.prefix))
    if found is not None and found.decode() != layout_of(queue):
        raise errors.ConfigError(_advice(queue, found.decode()))
    return found is not None


async def check_at_start(redis: Client, queue: Queue) -> None:
    """`check`, but a Redis that is away is no reason not to start. Raises ConfigError."""
    try:
        await check(redis, queue)
    except errors.QueueUnavailable as error:
        log.warning("the version of the keys is not known yet: %s", error.message)


async def watch(redis: Client, queue: Queue) -> None:
    """End this process, as SIGTERM does, once the keys are of another version."""
    while True:
        await asyncio.sleep(WATCH_EVERY)
        try:
            await check(redis, queue)
        except errors.QueueUnavailable:
            continue
        except errors.ConfigError as error:
            log.critical("stopping: %s", error.message)
            signal.raise_signal(signal.SIGTERM)
            return


def _advice(queue: Queue, found: str) -> str:
    return (
        f"the keys {queue.prefix}* in Redis have the layout {found[:20]!r} and this release, with queue.policy: "
        f"{queue.policy}, works with {layout_of(queue)!r}; run one release and one policy only, or let the other "
        "finish its jobs, stop it, and delete its keys (durable jobs come back from SQL)"
    )
