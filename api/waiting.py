"""Waiting for the end of a job that another call, or an earlier one, has made."""

import asyncio
from contextlib import aclosing

from starlette.requests import Request

from api.context import context_of
from api.departure import UntilDeparture
from api.job_events import with_silences
from inferq.job import Job

RECORDED_S, RECORDED_MOST_S = 0.02, 1.0
"""First and longest pause of a wait that looks whether SQL holds a result: the scheduler may be away."""


async def awaited(request: Request, job_id: str, seconds: float) -> Job:
    """The job when it has ended, or as it is when the time is over or the server stops.

    Raises CallerLeft; the job goes on, and a caller who leaves loses nothing.
    """
    gateway, stopping = context_of(request).gateway, context_of(request).stopping
    try:
        async with (
            UntilDeparture(request.receive),
            asyncio.timeout(seconds),
            aclosing(with_silences(gateway.queue.events(job_id), seconds, stopping)) as events,
        ):
            async for event in events:
                if event is not None and event[1] == "done":
                    break
            # A durable job has ended when SQL says so, which is a moment after Redis does.
            pause = RECORDED_S
            while not (job := await gateway.intake.find(job_id)).terminal and not stopping.is_set():
                await asyncio.sleep(pause)
                pause = min(2 * pause, RECORDED_MOST_S)
            return job
    except TimeoutError:
        return await gateway.intake.find(job_id)
