"""Answers on the replica's side: frames for an api process leave in order, packed into one entry per tick.

Order is kept per destination by awaiting each write before the next. The first part of an answer is not a second path:
it flushes what waits and goes out at once, in the call that proves the lease.
"""

import asyncio
import logging

from inferq import errors
from queues import frames
from queues.attempts import Attempt, Attempts
from queues.connection import Client, translated
from queues.frames import FrameKind

log = logging.getLogger(__name__)

TICK = 0.005
"""Seconds that chunks are gathered. Many streams are read in ticks of their own and arrive together."""
KEPT_EVENTS = 10_000
LAG_SECONDS = 10.0
LAG_BYTES = 64 * 2**20


class _Destination:
    """What waits for one api process."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.lock = asyncio.Lock()
        self.flusher: asyncio.Task[None] | None = None
        self.gone = False
        self.lagging = False


class ReplyWriter:
    """All reply streams that one replica writes to."""

    def __init__(self, redis: Client, attempts: Attempts, prefix: str):
        self._redis = redis
        self._attempts = attempts
        self._prefix = prefix
        self._destinations: dict[str, _Destination] = {}

    async def first(self, attempt: Attempt, data: bytes) -> bool:
        """Send chunk 0. False when the attempt is no longer trusted; then nothing was sent."""
        frame = frames.pack(attempt.id, FrameKind.CHUNK, attempt.token, 0, data)
        if not attempt.reply_to:
            return await self._attempts.first_byte(attempt, b"")
        destination = self._destination(attempt.reply_to)
        async with destination.lock:
            await self._write(attempt.reply_to, destination)
            return await self._attempts.first_byte(attempt, frame)

    def chunk(self, attempt: Attempt, seq: int, data: bytes) -> None:
        """Send a later chunk with the next tick."""
        if not attempt.reply_to:
            return
        destination = self._destination(attempt.reply_to)
        destination.frames.append(frames.pack(attempt.id, FrameKind.CHUNK, attempt.token, seq, data))
        if destination.flusher is None or destination.flusher.done():
            destination.flusher = asyncio.create_task(self._flush_soon(attempt.reply_to, destination))

    async def keep(self, attempt: Attempt, data: bytes) -> None:
        """Note a chunk in the event stream of a kept job, for followers who come or come back later.

        The claim has begun that stream. Where it is gone, Redis knows nothing of the job, and it would stay for ever.
        """
        key, event = f"{self._prefix}events:{attempt.id}", {"name": "chunk", "data": data}
        async with translated():
            await self._redis.xadd(key, event, maxlen=KEPT_EVENTS, approximate=True, nomkstream=True)

    async def drain(self, attempt: Attempt) -> None:
        """Return when every chunk sent so far is in Redis; the end of the answer may follow."""
        if attempt.reply_to:
            await self._flush(attempt.reply_to, self._destination(attempt.reply_to))

    def unreachable(self, attempt: Attempt) -> bool:
        """True when the api process is gone, or reads so slowly that its streams are to end."""
        destination = self._destinations.get(attempt.reply_to or "")
        return destination is not None and (destination.gone or destination.lagging)

    async def check(self, waiting_apis: set[str]) -> None:
        """Once a second: see which of these api processes are gone or lag, and forget those nobody waits for."""
        for name in set(self._destinations) - waiting_apis:
            if not self._destinations[name].frames:
                del self._destinations[name]
        for name in waiting_apis:
            destination = self._destination(name)
            key = f"{self._prefix}reply:{name}"
            async with translated():
                destination.gone = not await self._redis.exists(key)
                oldest = await self._redis.xrange(key, count=1)
                size = await self._redis.memory_usage(key, samples=1) if oldest else 0
                now = (await self._redis.time())[0]
            age = now - int(oldest[0][0].split(b"-")[0]) / 1000 if oldest else 0.0
            destination.lagging = age > LAG_SECONDS or (size or 0) > LAG_BYTES

    def _destination(self, name: str) -> _Destination:
        return self._destinations.setdefault(name, _Destination())

    async def _flush_soon(self, name: str, destination: _Destination) -> None:
        await asyncio.sleep(TICK)
        await self._flush(name, destination)

    async def _flush(self, name: str, destination: _Destination) -> None:
        """Write until nothing waits; while Redis is away, again and again."""
        while destination.frames:
            try:
                async with destination.lock:
                    await self._write(name, destination)
            except errors.QueueUnavailable as error:
                log.warning("replies to %s wait: %s", name, error.message)
                await asyncio.sleep(0.2)

    async def _write(self, name: str, destination: _Destination) -> None:
        """Write what waits as one entry. On failure it stays: a repeat is dropped by the reader's sequence check."""
        packed, size = b"".join(destination.frames), len(destination.frames)
        if not packed:
            return
        async with translated():
            entry = await self._redis.xadd(f"{self._prefix}reply:{name}", {"b": packed}, nomkstream=True)
        del destination.frames[:size]
        destination.gone = entry is None
