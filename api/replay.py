"""Answering a call with the job that an earlier call has made: whole, or as a stream from its beginning.

It makes no jobs. What has ended is answered from what is stored and marked `Idempotent-Replayed`.
"""

import asyncio
from contextlib import aclosing

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api import errors as wire
from api import sse
from api.answers import AlreadyThere, Answer
from api.context import context_of
from api.departure import CallerLeft, UntilDeparture
from api.idempotency import REPLAYED, find_or_none
from api.job_events import with_silences
from api.results import result_response
from api.waiting import awaited
from inferq import errors
from inferq.endpoints import ENDPOINTS
from inferq.job import Failure, Job, JobState
from inferq.streams import unfold
from queues.intake import CANCELLED

AGAIN_S = 0.02
"""Pause until a job is looked for again that another call is just submitting."""


class FirstOrSame(Response):
    """A call with a key. Of several at the same time one submits the job, and the others wait for it with it."""

    def __init__(self, request: Request, answer: Answer):
        self.background = None
        self._request = request
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._other_answer(scope, receive, send)
        if response is not None:
            await response(scope, receive, send)

    async def _other_answer(self, scope: Scope, receive: Receive, send: Send) -> ASGIApp | None:
        """None when this call has been answered as the first."""
        job_id, context = self._answer.spec.id, context_of(self._request)
        while True:
            # No pause between the question and the registration: two waiters of one job would take from each other.
            if not context.gateway.replies.awaits(job_id):
                try:
                    await self._answer(scope, receive, send)
                except AlreadyThere:
                    return await repeated(self._request, await context.gateway.intake.find(job_id))
                return None
            job = await find_or_none(self._request, job_id)
            if job is not None:
                return await repeated(self._request, job)
            await asyncio.sleep(AGAIN_S)


async def repeated(request: Request, job: Job) -> ASGIApp:
    """The answer of an interactive call from the job of an earlier one. Raises EngineTimeout, Conflict."""
    if job.spec.stream and not _is_bytes(job):
        return StreamReplay(request, job)
    ended = job
    if not job.terminal:
        patience = context_of(request).settings.api.wait_timeout
        ended = await awaited(request, job.id, patience)
    if not ended.terminal:
        raise errors.EngineTimeout(
            f"Job {job.id} gave no answer in time; it goes on; its result will be at /v1/jobs/{job.id}",
            job_id=job.id,
        )
    response = await _stored(request, ended)
    if job.terminal:
        response.headers[REPLAYED] = "true"
    return response


async def _stored(request: Request, job: Job) -> Response:
    if job.state is not JobState.SUCCEEDED:
        return wire.respond_failure(_failure(job), job.id)
    response = await result_response(request, job)
    if response is None:
        raise errors.Conflict(f"The answer of job {job.id} is not kept any more.", job_id=job.id)
    response.headers["X-Job-Id"] = job.id
    return response


def _is_bytes(job: Job) -> bool:
    """A stream that is no events, such as sound, is kept as a whole."""
    endpoint, body = ENDPOINTS[job.spec.endpoint], job.spec.body
    return bool(body) and endpoint.stream_type(orjson.loads(body)) is not None


def _failure(job: Job) -> Failure:
    """Why a job has no answer. A row that was cancelled in SQL says no more than that."""
    unsaid = (
        CANCELLED
        if job.state is JobState.CANCELLED
        else Failure(code=job.state, message=f"the job {job.state}")
    )
    return job.error or unsaid


class StreamReplay(Response):
    """The events of a job from the first on, as its first caller gets or got them.

    1. From the job's events, while Redis has them: all of them, and those that still come. 2. From the stored answer of
    a text, in one piece. 3. Otherwise it is refused: the answer is there, but not as a stream.
    """

    def __init__(self, request: Request, job: Job):
        self.background = None
        self._request = request
        self._context = context_of(request)
        self._job = job
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with UntilDeparture(receive):
                response = await self._pass_on(send)
        except CallerLeft:
            return
        if response is not None:
            await response(scope, receive, send)

    async def _pass_on(self, send: Send) -> Response | None:
        """Send what the events hold; the whole answer instead where they hold nothing of it."""
        events = self._context.gateway.queue.events(self._job.id)
        following = with_silences(events, sse.KEEP_ALIVE, self._context.stopping)
        first, done = True, False
        async with aclosing(following):
            async for event in following:
                if event is None:
                    await self._start(send)
                    await send(sse.part(sse.comment(str(self._job.state))))
                    continue
                # 1. The first event is that the job runs: a chunk in its place means that the beginning was trimmed
                # away. 2. A durable job that lost its replica starts over, and what was sent cannot be taken back.
                if event[1] == "chunk" if first else event[1] == "state" and self._started:
                    break
                first = False
                if event[1] == "chunk":
                    await self._start(send)
                    await send(sse.part(event[2]))
                done = event[1] == "done"
        job = await self._context.gateway.intake.find(self._job.id)
        if not self._started:
            return await self._from_store(job)
        await self._end(job, send, whole=done)
        return None

    async def _start(self, send: Send) -> None:
        if self._started:
            return
        self._started = True
        headers = [(b"x-job-id", self._job.id.encode())]
        if self._job.terminal:
            headers.append((REPLAYED.lower().encode(), b"true"))
        await send(sse.start(*headers))

    async def _end(self, job: Job, send: Send, *, whole: bool) -> None:
        if whole and job.state in (JobState.SUCCEEDED, JobState.RUNNING):
            # A durable job shows as running until SQL has its end.
            await send(sse.part(b"", more=False))
            return
        broken = Failure(code="stream_broken", message="the end of the answer was lost", status=502)
        failure = _failure(job) if job.terminal and job.state is not JobState.SUCCEEDED else broken
        await send(sse.part(wire.event_of(failure), more=False))

    async def _from_store(self, job: Job) -> Response:
        if not job.terminal:
            return wire.respond(errors.Unavailable("The events of the job are away.", job_id=job.id))
        if job.state is not JobState.SUCCEEDED:
            response = await _stored(self._request, job)
            response.headers[REPLAYED] = "true"
            return response
        events = unfold(job.spec.endpoint, job.result) if job.result else None
        if events is None:
            raise errors.Conflict(
                f"The events of job {job.id} are not kept any more; its answer is at /v1/jobs/{job.id}/result.",
                job_id=job.id,
            )
        made = {name.decode(): value.decode() for name, value in sse.HEADERS}
        return Response(events, headers={**made, "X-Job-Id": job.id, REPLAYED: "true"})
