"""Interactive calls: submit the job, wait for its frames, pass them on, and cancel it when nobody waits any more.

Three ASGI responses: `WholeAnswer`, `StreamAnswer` and `SoundAnswer`. Frames are forwarded as bytes; nothing on this
path parses or rebuilds JSON. Errors before the first byte are raised and become HTTP errors, later ones end the stream
as an event.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api import errors as wire
from api import rate_headers, sse
from api.context import Context
from api.departure import CallerLeft, UntilDeparture
from inferq import errors
from inferq.job import Failure, JobSpec, JobState
from queues.bounds import NO_RATES
from queues.frames import RESULTS, Frame, FrameKind
from queues.intake import Accepted
from queues.replies import Waiter
from storage.idempotency import Claim

log = logging.getLogger(__name__)

ANSWERS = RESULTS | {FrameKind.ERROR}
SLOW_CLIENT = 30.0
"""Seconds that a client may take to accept bytes before its stream is cut off."""


Shape = Callable[[bytes], Awaitable[bytes]]
"""Makes of an engine's answer what the caller gets."""
Keep = Callable[[bytes, str], Awaitable[None]]
"""Is given an engine's good answer and its media type, for others who ask the same."""


class AlreadyThere(Exception):
    """Another call has submitted the same job; this one has no waiter in it."""


class Answer(Response):
    """What both kinds share. `weight` is the share of device time of the caller's tenant."""

    def __init__(
        self,
        context: Context,
        spec: JobSpec,
        weight: float,
        shape: Shape | None = None,
        keep: Keep | None = None,
    ):
        self.background = None
        self.context = context
        self.spec = spec
        self.weight = weight
        self.shape = shape
        self.keep = keep
        self.patience = context.settings.api.wait_timeout
        self.job_header = (b"x-job-id", spec.id.encode())
        self.chain = bool(context.settings.served[spec.model].fallback)
        """Another model may answer."""
        self.began = time.perf_counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outcome = "failed"
        with self.context.gateway.replies.register(self.spec.id) as waiter:
            await self._submit(scope)
            try:
                outcome = await self.answer(waiter, receive, self._named(send))
            except CallerLeft:
                outcome = "abandoned"
                self.context.telemetry.departures.inc()
                await self._abandon()
            except errors.EngineTimeout:
                outcome = "timeout"
                await self._abandon()
                raise
            finally:
                self.context.telemetry.job_finished(
                    self.spec.model, outcome, time.perf_counter() - self.began
                )

    async def answer(self, waiter: Waiter, receive: Receive, send: Send) -> str:
        """Send the answer; the outcome as a word for the metrics."""
        raise NotImplementedError

    async def _submit(self, scope: Scope) -> None:
        spec, gateway = self.spec, self.context.gateway
        accepted = await submit(self.context, spec, scope, weight=self.weight, reply_to=gateway.replies.name)
        if not accepted.created:
            raise AlreadyThere
        gateway.replies.accepted(spec)

    def _named(self, send: Send) -> Send:
        """With a header that names the model which ran the job, when that was not the one asked for."""
        if not self.chain:
            return send

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start" and (server := await self._served_by()):
                message["headers"] = [*message["headers"], (b"x-served-by", server.encode())]
            await send(message)

        return named

    async def _served_by(self) -> str | None:
        if not self.chain:
            return None
        try:
            job = await self.context.gateway.queue.get(self.spec.id)
        except errors.QueueUnavailable:
            return None
        return job.served_by if job else None

    async def _abandon(self) -> None:
        """Nobody waits any more. With Redis away the job's lease or its lapsed api ends it."""
        if self.spec.kept:
            return
        try:
            await self.context.gateway.intake.abandon(self.spec.id)
        except errors.Unavailable as error:
            log.warning("job %s could not be cancelled: %s", self.spec.id, error.message)

    def timed_out(self) -> errors.EngineTimeout:
        """The wait is over. A kept job goes on without its caller."""
        fate = (
            f"it goes on; its result will be at /v1/jobs/{self.spec.id}"
            if self.spec.kept
            else "it was cancelled"
        )
        return errors.EngineTimeout(
            f"Job {self.spec.id} gave no answer within {self.patience:g} s; {fate}.", job_id=self.spec.id
        )

    async def send_whole(self, frame: Frame, send: Send) -> str:
        """Answer with one frame: a result as it came from the engine, or an error with its status."""
        match frame.kind:
            case FrameKind.RESULT | FrameKind.TYPED:
                data, media_type = frame.result
                self.context.telemetry.answer_told(self.spec.model, data, time.perf_counter() - self.began)
                if self.keep is not None and await self._served_by() is None:
                    await self.keep(data, media_type)
                if self.shape is not None:
                    data = await self.shape(data)
                await self._send_bytes(send, 200, data, media_type.encode())
                return "succeeded"
            case FrameKind.ERROR:
                await self._send_response(send, wire.respond_failure(failure_of(frame), self.spec.id))
                return "failed"
            case _:
                raise errors.StreamBroken(f"Job {self.spec.id} ended without a result.", job_id=self.spec.id)

    async def _send_bytes(self, send: Send, status: int, data: bytes, media_type: bytes) -> None:
        length = str(len(data)).encode()
        headers = [(b"content-type", media_type), (b"content-length", length), self.job_header]
        if self.keep is not None:
            headers.append((b"x-cache", b"miss"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send(sse.part(data, more=False))

    async def _send_response(self, send: Send, response: Response) -> None:
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
        await send(start)
        await send(sse.part(bytes(response.body), more=False))

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        """Send, and treat a client that takes no bytes like one that left."""
        try:
            async with asyncio.timeout(SLOW_CLIENT):
                await send(sse.part(data, more=more))
        except TimeoutError:
            log.info("job %s: the client reads too slowly and was cut off", self.spec.id)
            raise CallerLeft from None


class WholeAnswer(Answer):
    """One body, as the engine made it."""

    async def answer(self, waiter: Waiter, receive: Receive, send: Send) -> str:
        async with UntilDeparture(receive):
            frame = await waiter.next(self.patience)
        if frame is None:
            raise self.timed_out()
        return await self.send_whole(frame, send)


class StreamAnswer(Answer):
    """Server-sent events. The headers wait for the first frame, but at most `sse.KEEP_ALIVE` seconds."""

    async def answer(self, waiter: Waiter, receive: Receive, send: Send) -> str:
        async with UntilDeparture(receive):
            frame = await waiter.next(min(sse.KEEP_ALIVE, self.patience))
            if frame is None and self.patience <= sse.KEEP_ALIVE:
                raise self.timed_out()
            if frame is not None and frame.kind in ANSWERS:
                return await self.send_whole(frame, send)
            await send(sse.start(self.job_header))
            with self.context.telemetry.streams.track_inprogress():
                return await self._stream(frame, waiter, send)

    async def _stream(self, frame: Frame | None, waiter: Waiter, send: Send) -> str:
        silent_since = time.monotonic() if frame else time.monotonic() - sse.KEEP_ALIVE
        first = True
        while True:
            if frame is None:
                if time.monotonic() - silent_since >= self.patience:
                    return await self._give_up(send)
                await self._send(send, sse.comment(await self._standing()))
            elif frame.kind is FrameKind.CHUNK:
                if first:
                    self.context.telemetry.first_bytes(self.spec.model, time.perf_counter() - self.began)
                    first = False
                await self._send(send, frame.data)
                silent_since = time.monotonic()
            else:
                return await self._end(frame, send)
            frame = await waiter.next(sse.KEEP_ALIVE)

    async def _end(self, frame: Frame, send: Send) -> str:
        if frame.kind is FrameKind.END:
            await self._send(send, b"", more=False)
            return "succeeded"
        broken = Failure(
            code="stream_broken", message="the engine sent a body where a stream was due", status=502
        )
        failure = failure_of(frame) if frame.kind is FrameKind.ERROR else broken
        await self._send(send, wire.event_of(failure), more=False)
        return "failed"

    async def _give_up(self, send: Send) -> str:
        await self._abandon()
        await self._send(send, wire.event_of(wire.failure_of(self.timed_out())), more=False)
        return "timeout"

    async def _standing(self) -> str:
        """What a waiting caller is told; a look-up that fails must not end its stream."""
        try:
            job = await self.context.gateway.intake.find(self.spec.id)
        except errors.InferqError:
            return "waiting"
        if job.state is not JobState.QUEUED:
            return str(job.state)
        return f"queued, position {job.position}" if job.position else "queued"


class SoundAnswer(Answer):
    """Bytes of a sound, sent while it is made. What goes wrong after the first ones cuts the connection."""

    def __init__(self, context: Context, spec: JobSpec, weight: float, media_type: str):
        super().__init__(context, spec, weight)
        self.sound_type = media_type

    async def answer(self, waiter: Waiter, receive: Receive, send: Send) -> str:
        async with UntilDeparture(receive):
            frame = await waiter.next(self.patience)
            if frame is None:
                raise self.timed_out()
            if frame.kind in ANSWERS:
                return await self.send_whole(frame, send)
            await send(sse.sound_start(self.sound_type, self.job_header))
            self.context.telemetry.first_bytes(self.spec.model, time.perf_counter() - self.began)
            while frame is not None and frame.kind is FrameKind.CHUNK:
                await self._send(send, frame.data)
                frame = await waiter.next(self.patience)
            if frame is not None and frame.kind is FrameKind.END:
                await self._send(send, b"", more=False)
                return "succeeded"
        if frame is None:
            await self._abandon()
        log.warning("job %s: its sound broke off", self.spec.id)
        return "failed"


def failure_of(frame: Frame) -> Failure:
    """The failure that an ERROR frame carries."""
    value = orjson.loads(frame.data)
    return Failure(code=value["code"], message=value["message"], status=value["status"], param=value["param"])


async def submit(
    context: Context,
    spec: JobSpec,
    scope: Scope,
    *,
    weight: float,
    reply_to: str | None = None,
    claim: Claim | None = None,
) -> Accepted:
    """Hand a job to the queue, count what became of it, and note in the request's scope what its tenant has left."""
    try:
        accepted = await context.gateway.intake.submit(spec, reply_to=reply_to, weight=weight, claim=claim)
    except (errors.AtCapacity, errors.Unavailable) as error:
        context.telemetry.job_rejected(spec.model, error.code)
        rate_headers.note(scope, error.details.get("rates", NO_RATES))
        raise
    rate_headers.note(scope, accepted.rates)
    if not accepted.created:
        return accepted
    context.telemetry.job_accepted(spec.model, spec.lane, durable=spec.durable)
    return accepted
