"""`GET /v1/jobs/{id}/events`: a job's events as a resumable stream of server-sent events."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import sse
from api.context import Context
from api.departure import CallerLeft, UntilDeparture
from inferq import errors
from inferq.job import Job, JobState

Event = tuple[str, str, bytes]

_BEGINNING = "0-0"
_EVENT_ID = re.compile(r"\d{1,19}-\d{1,19}")
_LOOK = 1.0
"""Seconds between two looks whether a scheduled job is queued."""
_REPLAY = 0.2
"""Seconds in which Redis must have said what it still has of a job that has ended."""


class EventStream(Response):
    """Passes events on until `done`. What Redis no longer has of a finished job is replaced by its `done`."""

    def __init__(self, context: Context, job: Job, *, after: str | None):
        self.background = None
        self._context = context
        self._job = job
        self._after = after if after and _EVENT_ID.fullmatch(after) else _BEGINNING

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(sse.start((b"x-job-id", self._job.id.encode())))
        try:
            async with UntilDeparture(receive):
                await self._until_queued(send)
                await self._pass_on(send)
        except CallerLeft:
            return

    async def _until_queued(self, send: Send) -> None:
        """A job that waits for its time or for others has no events yet: its reader is kept until it has."""
        context, loop = self._context, asyncio.get_running_loop()
        told = loop.time()
        while _waits(self._job) and not context.stopping.is_set():
            await asyncio.sleep(_LOOK)
            with contextlib.suppress(errors.Unavailable):
                self._job = await context.gateway.intake.find(self._job.id)
            if loop.time() - told >= sse.KEEP_ALIVE:
                told = loop.time()
                await send(sse.part(sse.comment(str(self._job.state))))

    async def _pass_on(self, send: Send) -> None:
        events = self._context.gateway.queue.events(self._job.id, self._after)
        waiting = sse.KEEP_ALIVE if not self._job.terminal else _REPLAY
        async for event in with_silences(events, waiting, self._context.stopping):
            if event is None and self._job.terminal:
                break
            if event is None:
                await send(sse.part(sse.comment(str(self._job.state))))
                continue
            event_id, name, data = event
            self._after = event_id
            await send(sse.part(render(event_id, name, data)))
            if name == "done":
                await send(sse.part(b"", more=False))
                return
        await self._finish(send)

    async def _finish(self, send: Send) -> None:
        """Redis has no more to say. Without a `done` the reader comes back and goes on where it was."""
        try:
            job = await self._context.gateway.intake.find(self._job.id)
        except errors.InferqError:
            job = self._job
        last = render(self._after, "done", job.state.encode()) if job.terminal else b""
        await send(sse.part(last, more=False))


def _waits(job: Job) -> bool:
    """Whether it is in SQL alone; the pause before another attempt is in Redis."""
    return job.state is JobState.SCHEDULED and job.attempt == 0


def render(event_id: str, name: str, data: bytes) -> bytes:
    """An event as the API sends it: JSON data; of chunks, the data of the engine's own events, one per line."""
    match name:
        case "state" | "done":
            data = orjson.dumps({"state": data.decode()})
        case "progress":
            data = orjson.dumps({"progress": float(data)})
        case _:
            lines = [
                line.removeprefix(b"data:").strip() for line in data.splitlines() if line.startswith(b"data:")
            ]
            data = b"\n".join(lines) or data
    return sse.event(event_id, name, data)


async def with_silences(
    events: AsyncIterator[Event], seconds: float, stopping: asyncio.Event
) -> AsyncGenerator[Event | None]:
    """The events, and None whenever none came for `seconds`. Ends early when Redis goes away or the server stops."""
    pending = asyncio.ensure_future(_next(events))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        while True:
            done, _ = await asyncio.wait(
                {pending, stop}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if stop in done:
                return
            if not done:
                yield None
                continue
            event = pending.result()
            if event is None:
                return
            pending = asyncio.ensure_future(_next(events))
            yield event
    except errors.QueueUnavailable:
        return
    finally:
        pending.cancel()
        stop.cancel()


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)
