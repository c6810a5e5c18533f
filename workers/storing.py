"""Patience with the artifact store: while it is full or away, what an engine has answered is kept and offered again.

Running the job again would cost the device the same work and end at the same place. How long an attempt may take is
not known here: the runner stops it, as it stops one whose engine takes too long.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from inferq import errors
from workers.running import Running

log = logging.getLogger(__name__)

T = TypeVar("T")
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
ADVICE = "free space on the artifact store or make it reachable again, then run the job again"
_SLOW = "the artifact store gives no answer"


def pauses() -> Iterator[float]:
    """Seconds between the tries: twice as many each time, up to the longest."""
    pause = FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(pause * 2, LONGEST_PAUSE_S)


async def patiently(
    running: Running,
    call: Callable[[], Awaitable[T]],
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """`call`, again and again while the store refuses it; to be cancelled when there is no more time.

    Somebody who waits on the connection for an answer that is not kept is told at once: raises StoreUnavailable.
    """
    running.store = _SLOW
    try:
        answer = await call()
    except errors.StoreUnavailable as refusal:
        if not running.attempt.job.spec.kept:
            raise
        running.store = refusal.message
        answer = await _wait(running, call, sleep)
    running.store = None
    return answer


async def _wait(
    running: Running, call: Callable[[], Awaitable[T]], sleep: Callable[[float], Awaitable[object]]
) -> T:
    job, began, end = running.attempt.id, time.monotonic(), "is waited for no longer"
    log.warning("job %s waits: %s", job, running.store)
    running.charge.pause()
    try:
        for pause in pauses():
            await sleep(pause)
            try:
                answer = await call()
            except errors.StoreUnavailable as refusal:
                running.store = refusal.message
            else:
                end = "works again"
                return answer
        raise AssertionError("the pauses have no end")
    finally:
        running.charge.resume()
        log.warning("job %s: the artifact store %s, after %.1f s", job, end, time.monotonic() - began)
