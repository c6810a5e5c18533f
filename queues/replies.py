"""Answers on the api's side: one Redis stream per api process, read by one loop, handed to the waiters of its jobs.

The stream is only a fast path. Every 2 s the states of all awaited jobs are compared with what Redis holds, so a lost
entry costs seconds, never an answer. A job that Redis has forgotten ends as ``redis_lost``.
"""

import asyncio
import contextlib
import logging
import secrets
import struct
import time
from collections import deque
from types import TracebackType
from typing import Any, Self

from inferq import errors, process
from inferq.job import TERMINAL, Failure, Job, JobSpec, JobState
from queues import frames, records, stream_id
from queues.connection import BLOCK_MS, Client, translated
from queues.frames import PARTS, Frame, FrameKind, result_data
from queues.presence import Presence
from queues.queue import JobQueue

log = logging.getLogger(__name__)

BUFFER_LIMIT = 8 * 2**20
"""Bytes that may wait for a slow client before it is cut off."""
CHECK_EVERY = 2.0
OUTAGE_LIMIT = 15.0
"""Seconds without Redis after which waiting calls are refused: by then no attempt is trusted any more."""
PRESENCE_EVERY = 3.0
TRIM_EVERY = 0.5
"""Seconds between two trims of what was read; a trim after each read costs a round trip per tick."""
STREAM_TTL = 10

LOST = Failure(code="redis_lost", message="the queue lost its memory while the job was in it", status=503)
AWAY = Failure(code="queue_unavailable", message="the queue (Redis) is away", status=503)


class Waiter:
    """The answer of one job, frame by frame. Use as a context manager around submit and read."""

    def __init__(self, reader: "ReplyReader", job_id: str):
        self._reader = reader
        self.job_id = job_id
        self.spec: JobSpec | None = None
        self.registered = time.monotonic()
        self.unknown = 0
        self.barrier: str | None = None
        self._frames: deque[Frame] = deque()
        self._size = 0
        self._expected = 0
        self._token = ""
        self._ended = False
        self._arrived = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.forget(self.job_id)

    @property
    def ended(self) -> bool:
        """True once the last frame has arrived, read or not."""
        return self._ended

    async def next(self, timeout: float | None = None) -> Frame | None:
        """The next frame, or None when none came within `timeout` seconds. Chunks that wait are joined into one."""
        if not self._frames:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        frame = self._frames.popleft()
        if frame.kind is FrameKind.CHUNK and self._frames and self._frames[0].kind is FrameKind.CHUNK:
            parts = [frame.data]
            while self._frames and self._frames[0].kind is FrameKind.CHUNK:
                parts.append(self._frames.popleft().data)
            frame = Frame(frame.job_id, frame.kind, frame.token, frame.seq, b"".join(parts))
        self._size -= len(frame.data)
        return frame

    def put(self, frame: Frame) -> None:
        """Take a frame from the reader: repeats are dropped; a gap, a full buffer, or a part of another run ends the
        answer with an error.
        """
        if self._ended:
            return
        if frame.kind in PARTS and self._expected and frame.token != self._token:
            # Redis has forgotten the run that began this answer (a failover), and what was sent cannot be taken back.
            frame = self._failed("stream_broken", "the job began anew when a part of its answer was out", 502)
        elif frame.kind is FrameKind.CHUNK:
            if frame.seq < self._expected:
                return
            if frame.seq > self._expected:
                frame = self._failed("stream_broken", "a part of the answer was lost", 502)
            elif self._size + len(frame.data) > BUFFER_LIMIT:
                frame = self._failed(
                    "client_too_slow", "the client reads too slowly; the stream was ended", 499
                )
            else:
                self._token = frame.token
                self._expected += 1
        elif frame.kind is FrameKind.END and frame.seq != self._expected:
            frame = self._failed("stream_broken", "the end of the answer was lost", 502)
        self._ended = frame.last
        self._size += len(frame.data)
        self._frames.append(frame)
        self._arrived.set()

    def fail(self, failure: Failure) -> None:
        """End the answer with a failure, unless it has ended."""
        self.put(Frame(self.job_id, FrameKind.ERROR, "", 0, records.failure_text(failure)))

    def _failed(self, code: str, message: str, status: int) -> Frame:
        failure = Failure(code=code, message=message, status=status)
        return Frame(self.job_id, FrameKind.ERROR, "", 0, records.failure_text(failure))


class ReplyReader:
    """Owns the reply stream of one api process. `lost` collects specs of jobs that Redis forgot, for the ledger."""

    def __init__(self, redis: Client, queue: JobQueue, prefix: str):
        self.name = secrets.token_hex(6)
        self.lost: asyncio.Queue[JobSpec] = asyncio.Queue()
        self._redis = redis
        self._queue = queue
        self._key = f"{prefix}reply:{self.name}"
        self._presence = Presence(redis, prefix)
        self._waiters: dict[str, Waiter] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._cursor = "0-0"
        self._away_since: float | None = None
        self._trim_at = 0.0
        self._untrimmed = False

    def start(self) -> None:
        """Begin reading; Redis need not be there yet."""
        self._tasks = [
            asyncio.create_task(loop()) for loop in (self._read_loop, self._check_loop, self._presence_loop)
        ]

    async def stop(self) -> None:
        await process.end_tasks(self._tasks)
        with contextlib.suppress(errors.QueueUnavailable):
            async with translated():
                await self._redis.delete(self._key)
                await self._presence.hide("api", self.name)

    def register(self, job_id: str) -> Waiter:
        """A waiter for a job that is about to be submitted with `reply_to=self.name`."""
        waiter = self._waiters[job_id] = Waiter(self, job_id)
        return waiter

    def awaits(self, job_id: str) -> bool:
        """True while a waiter for this job is registered."""
        return job_id in self._waiters

    def accepted(self, spec: JobSpec) -> None:
        """The job of a waiter is in the queue: from now on its absence means that Redis lost it."""
        waiter = self._waiters.get(spec.id)
        if waiter:
            waiter.spec = spec

    def forget(self, job_id: str) -> None:
        self._waiters.pop(job_id, None)

    async def _read_loop(self) -> None:
        away = False
        while True:
            try:
                await self._read_once()
                away = False
            except errors.QueueUnavailable as error:
                if not away:
                    log.warning("reading replies: %s; trying again until it is back", error.message)
                away = True
                await asyncio.sleep(0.2)

    async def _read_once(self) -> None:
        async with translated():
            found: Any = await self._redis.xread({self._key: self._cursor}, count=200, block=BLOCK_MS)
        for entry_id, entry in found[0][1] if found else []:
            self._cursor = entry_id.decode()
            self._deliver(entry.get(b"b", b""))
            self._untrimmed = True
        if self._untrimmed and (not found or time.monotonic() >= self._trim_at):
            # What was read must not stay: a writer takes the age of the oldest entry for this reader's lag.
            async with translated():
                await self._redis.xtrim(self._key, minid=stream_id.after(self._cursor), approximate=False)
            self._untrimmed, self._trim_at = False, time.monotonic() + TRIM_EVERY

    def _deliver(self, packed: bytes) -> None:
        try:
            for frame in frames.unpack(packed):
                waiter = self._waiters.get(frame.job_id)
                if waiter:
                    waiter.put(frame)
        except (struct.error, ValueError):
            # From another version, perhaps. What was in it is missed by its sequence number or by the next check.
            log.exception("an entry of the reply stream cannot be read")

    async def _presence_loop(self) -> None:
        """Show that this process is there, and make the stream again where Redis has lost it."""
        while True:
            try:
                async with translated():
                    if not await self._redis.exists(self._key):
                        self._cursor = "0-0"
                        await self._redis.xadd(self._key, {"b": b""})
                    await self._redis.expire(self._key, STREAM_TTL)
                    await self._presence.show_api(self.name)
            except errors.QueueUnavailable:
                await asyncio.sleep(0.5)
                continue
            await asyncio.sleep(PRESENCE_EVERY)

    async def _check_loop(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                await self._check()
                self._away_since = None
            except errors.QueueUnavailable:
                self._away_since = self._away_since or time.monotonic()
                if time.monotonic() - self._away_since > OUTAGE_LIMIT:
                    for waiter in list(self._waiters.values()):
                        waiter.fail(AWAY)

    async def _check(self) -> None:
        """Compare what is awaited with what Redis holds; states first, whole records only for jobs that ended."""
        limit = time.monotonic() - CHECK_EVERY
        due = [w for w in self._waiters.values() if w.spec and not w.ended and w.registered < limit]
        for start in range(0, len(due), 500):
            chunk = due[start : start + 500]
            states = await self._queue.states([w.job_id for w in chunk])
            newest = await self._newest()
            for waiter, state in zip(chunk, states, strict=True):
                waiter.unknown = waiter.unknown + 1 if state is None else 0
                if waiter.unknown >= 2 and waiter.spec:
                    self.lost.put_nowait(waiter.spec)
                    waiter.fail(LOST)
                elif state is not None and JobState(state) in TERMINAL:
                    await self._make_good(waiter, newest)

    async def _newest(self) -> str:
        """Id of the last entry that is in the stream."""
        async with translated():
            entries = await self._redis.xrevrange(self._key, count=1)
        return entries[0][0].decode() if entries else "0-0"

    async def _make_good(self, waiter: Waiter, newest: str) -> None:
        """The job of a waiter has ended: what is not in the stream up to `newest` will not come any more."""
        waiter.barrier = waiter.barrier or newest
        if stream_id.order(self._cursor) < stream_id.order(waiter.barrier):
            return
        job = await self._queue.get(waiter.job_id)
        if job:
            waiter.put(_last_frame(job))


def _last_frame(job: Job) -> Frame:
    """The end of an answer, made from the record of a job that has ended."""
    if job.state is JobState.SUCCEEDED and not job.spec.stream and job.result is not None:
        kind, data = result_data(job.result, job.result_type)
        return Frame(job.id, kind, "", 0, data)
    broken = Failure(code="stream_broken", message="the end of the answer was lost", status=502)
    failure = job.error or broken
    return Frame(job.id, FrameKind.ERROR, "", 0, records.failure_text(failure))
