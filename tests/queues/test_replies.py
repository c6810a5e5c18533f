"""The reading side of answers: order, gaps, slow clients, lost entries and a Redis that comes back empty."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from inferq import errors
from queues import frames, replies
from queues.attempts import Attempt, Finish, Outcome
from queues.frames import Frame, FrameKind
from queues.replies import BUFFER_LIMIT, ReplyReader, Waiter
from tests.queues.builders import BROKEN, DONE, PREFIX, Bench, Server, bench, eventually, spec

JOB = "j" * 36


def frame(kind: FrameKind, seq: int = 0, data: bytes = b"") -> Frame:
    return Frame(JOB, kind, "t" * 16, seq, data)


def code(answer: Frame | None) -> str:
    """The reason of an error frame."""
    assert answer is not None
    assert answer.kind is FrameKind.ERROR
    return str(orjson.loads(answer.data)["code"])


@asynccontextmanager
async def reading(b: Bench) -> AsyncIterator[ReplyReader]:
    """A reader that is at work."""
    reader = ReplyReader(b.redis, b.queue, PREFIX)
    reader.start()
    try:
        await eventually(lambda: b.redis.exists(f"{PREFIX}reply:{reader.name}"))
        await eventually(lambda: b.redis.exists(f"{PREFIX}api:{reader.name}"))
        yield reader
    finally:
        await reader.stop()


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at all awaited jobs comes often, so that a test need not wait for it."""
    monkeypatch.setattr(replies, "CHECK_EVERY", 0.05)
    monkeypatch.setattr(replies, "PRESENCE_EVERY", 0.05)


async def awaited(b: Bench, reader: ReplyReader, **changes: object) -> tuple[Waiter, Attempt]:
    """An interactive job that runs, and the one who waits for it."""
    asked = spec(kept=False, **changes)
    waiter = reader.register(asked.id)
    await b.queue.accept(asked, "direct", reply_to=reader.name)
    reader.accepted(asked)
    attempt = await b.replica().claim()
    assert attempt is not None
    return waiter, attempt


async def send(b: Bench, reader: ReplyReader, attempt: Attempt, *parts: tuple[FrameKind, int, bytes]) -> None:
    packed = b"".join(frames.pack(attempt.id, kind, attempt.token, seq, data) for kind, seq, data in parts)
    await b.redis.xadd(f"{PREFIX}reply:{reader.name}", {"b": packed}, nomkstream=True)


class Buffer:
    """A waiter by itself, without Redis."""

    def __init__(self) -> None:
        reader = ReplyReader(None, None, PREFIX)  # type: ignore[arg-type]
        self.waiter = reader.register(JOB)

    async def put(self, *given: Frame) -> list[Frame]:
        """What the waiter reads after these frames."""
        for item in given:
            self.waiter.put(item)
        found = []
        while (answer := await self.waiter.next(0)) is not None:
            found.append(answer)
        return found


async def test_chunks_come_in_order_and_joined():
    read = await Buffer().put(
        *(frame(FrameKind.CHUNK, i, f"{i};".encode()) for i in range(3)), frame(FrameKind.END, 3)
    )
    assert [(r.kind, r.data) for r in read] == [(FrameKind.CHUNK, b"0;1;2;"), (FrameKind.END, b"")]


async def test_a_gap_is_an_error_not_silence():
    read = await Buffer().put(
        frame(FrameKind.CHUNK, 0, b"0"), frame(FrameKind.CHUNK, 2, b"2"), frame(FrameKind.END, 3)
    )
    assert read[0].data == b"0"
    assert code(read[1]) == "stream_broken"
    assert len(read) == 2


async def test_repeats_are_dropped():
    chunks = [frame(FrameKind.CHUNK, i, f"{i}".encode()) for i in (0, 1, 0, 1, 2)]
    read = await Buffer().put(*chunks, frame(FrameKind.END, 3), frame(FrameKind.END, 3))
    assert [r.data for r in read] == [b"012", b""]


async def test_an_end_after_a_missing_chunk_is_an_error():
    read = await Buffer().put(frame(FrameKind.CHUNK, 0, b"0"), frame(FrameKind.END, 2))
    assert code(read[1]) == "stream_broken"


@pytest.mark.parametrize("kind", [FrameKind.CHUNK, FrameKind.END])
async def test_two_runs_are_never_made_into_one_answer(kind: FrameKind):
    chunks = [frame(FrameKind.CHUNK, i, f"{i}".encode()) for i in range(2)]
    read = await Buffer().put(*chunks, replace(frame(kind, 2, b"x"), token="u" * 16))
    assert read[0].data == b"01"
    assert code(read[1]) == "stream_broken"
    assert len(read) == 2


async def test_nothing_follows_the_last_frame():
    read = await Buffer().put(frame(FrameKind.RESULT, 0, b"{}"), frame(FrameKind.ERROR, 0, b"{}"))
    assert [r.kind for r in read] == [FrameKind.RESULT]


async def test_a_slow_client_is_cut_off():
    half = b"x" * (BUFFER_LIMIT // 2)
    buffer = Buffer()
    for seq in range(3):
        buffer.waiter.put(frame(FrameKind.CHUNK, seq, half))
    assert buffer.waiter.ended
    read = await buffer.put(frame(FrameKind.CHUNK, 3, b"late"))
    assert sum(len(r.data) for r in read if r.kind is FrameKind.CHUNK) == 2 * len(half)
    assert code(read[-1]) == "client_too_slow"


async def test_a_client_that_reads_is_not_cut_off():
    half, buffer = b"x" * (BUFFER_LIMIT // 2), Buffer()
    for seq in range(6):
        assert [r.kind for r in await buffer.put(frame(FrameKind.CHUNK, seq, half))] == [FrameKind.CHUNK]
    assert not buffer.waiter.ended


async def test_waiting_ends_at_the_time_out():
    assert await Buffer().waiter.next(0.01) is None


async def test_an_answer_reaches_its_waiter_and_is_trimmed(redis_url: str):
    async with bench(redis_url) as b, reading(b) as reader:
        waiter, attempt = await awaited(b, reader)
        other, second = await awaited(b, reader)
        with waiter, other:
            await b.replica().first_byte(
                attempt, frames.pack(attempt.id, FrameKind.CHUNK, attempt.token, 0, b"data: 1\n\n")
            )
            await send(b, reader, attempt, (FrameKind.CHUNK, 1, b"data: 2\n\n"))
            end = frames.pack(attempt.id, FrameKind.END, attempt.token, 2, b"")
            await b.replica().finish(attempt, replace(DONE, frame=end), claim_next=False)
            result = frames.pack(second.id, FrameKind.RESULT, second.token, 0, b'{"n":1}')
            await b.replica().finish(second, replace(DONE, frame=result), claim_next=False)
            read = [await waiter.next(5)]
            while read[-1] is not None and not read[-1].last:
                read.append(await waiter.next(5))
            assert b"".join(r.data for r in read if r) == b"data: 1\n\ndata: 2\n\n"
            assert read[-1] is not None
            assert read[-1].kind is FrameKind.END
            answer = await other.next(5)
            assert answer is not None
            assert (answer.kind, answer.data) == (FrameKind.RESULT, b'{"n":1}')
        await eventually(lambda: read_all(b, reader))


async def answers(b: Bench) -> bool:
    """True when every connection of the pool works again."""
    try:
        await asyncio.gather(*(b.queue.ping() for _ in range(32)))
    except errors.QueueUnavailable:
        return False
    return True


async def read_all(b: Bench, reader: ReplyReader) -> bool:
    return await b.redis.xlen(f"{PREFIX}reply:{reader.name}") == 0


async def test_a_lost_entry_is_made_good_from_the_record(redis_url: str, quick_checks: None):
    async with bench(redis_url) as b, reading(b) as reader:
        waiter, attempt = await awaited(b, reader)
        lost = Finish(outcome=Outcome.SUCCEEDED, result=b'{"n":1}', frame=b"")
        await b.replica().finish(attempt, lost, claim_next=False)
        answer = await waiter.next(10)
        assert answer is not None
        assert (answer.kind, answer.data) == (FrameKind.RESULT, b'{"n":1}')


async def test_the_reason_of_a_failure_is_made_good_from_the_record(redis_url: str, quick_checks: None):
    async with bench(redis_url) as b, reading(b) as reader:
        waiter, attempt = await awaited(b, reader)
        await b.replica().finish(attempt, Finish(outcome=Outcome.FAILED, failure=BROKEN), claim_next=False)
        assert code(await waiter.next(10)) == "engine_error"


async def test_the_lost_end_of_a_stream_is_an_error(redis_url: str, quick_checks: None):
    async with bench(redis_url) as b, reading(b) as reader:
        waiter, attempt = await awaited(b, reader, stream=True)
        await send(b, reader, attempt, (FrameKind.CHUNK, 0, b"0"))
        await b.replica().finish(attempt, DONE, claim_next=False)
        first = await waiter.next(10)
        assert first is not None
        assert first.data == b"0"
        assert code(await waiter.next(10)) == "stream_broken"


async def test_an_end_that_is_still_on_its_way_is_not_called_lost(redis_url: str):
    """The job has ended and its last entry is in the stream, unread: the look at all jobs must wait for it."""
    async with bench(redis_url) as b:
        reader = ReplyReader(b.redis, b.queue, PREFIX)
        waiter, attempt = await awaited(b, reader, stream=True)
        waiter.registered = 0.0
        end = frames.pack(attempt.id, FrameKind.END, attempt.token, 0, b"")
        await b.replica().finish(attempt, replace(DONE, frame=end), claim_next=False)
        for _ in range(3):
            await reader._check()
            assert not waiter.ended
        await reader._read_once()
        answer = await waiter.next(0)
        assert answer is not None
        assert answer.kind is FrameKind.END


async def test_an_entry_nobody_understands_does_not_stop_the_reader(redis_url: str):
    async with bench(redis_url) as b, reading(b) as reader:
        waiter, attempt = await awaited(b, reader)
        key = f"{PREFIX}reply:{reader.name}"
        await b.redis.xadd(key, {"b": b"not a frame"})
        await b.redis.xadd(
            key, {"b": frames.pack(JOB, FrameKind.CHUNK, "t" * 16, 0, b"").replace(b"C", b"?", 1)}
        )
        await b.redis.xadd(key, {"other": b""})
        await send(b, reader, attempt, (FrameKind.RESULT, 0, b"{}"))
        answer = await waiter.next(10)
        assert answer is not None
        assert answer.kind is FrameKind.RESULT


async def test_a_waiter_learns_that_redis_lost_its_job(short_dir: Path, quick_checks: None):
    with Server(short_dir) as server:
        async with bench(server.url) as b, reading(b) as reader:
            waiter, attempt = await awaited(b, reader)
            server.kill()
            server.wipe()
            server.start()
            answer = await waiter.next(20)
            assert code(answer) == "redis_lost"
            assert answer is not None
            assert orjson.loads(answer.data)["status"] == 503
            assert (await reader.lost.get()).id == attempt.id
            await eventually(lambda: b.redis.exists(f"{PREFIX}reply:{reader.name}"))
            again, second = await awaited(b, reader)
            await send(b, reader, second, (FrameKind.RESULT, 0, b"{}"))
            answer = await again.next(10)
            assert answer is not None
            assert answer.kind is FrameKind.RESULT


async def test_a_restart_that_kept_its_memory_loses_no_answer(short_dir: Path, quick_checks: None):
    with Server(short_dir, "--appendfsync", "always") as server:
        async with bench(server.url) as b, reading(b) as reader:
            waiter, attempt = await awaited(b, reader)
            server.kill()
            server.start()
            await eventually(lambda: answers(b))
            await send(b, reader, attempt, (FrameKind.RESULT, 0, b"{}"))
            answer = await waiter.next(20)
            assert answer is not None
            assert answer.kind is FrameKind.RESULT


async def test_waiters_are_refused_when_redis_stays_away(
    short_dir: Path, quick_checks: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(replies, "OUTAGE_LIMIT", 0.2)
    with Server(short_dir) as server:
        async with bench(server.url) as b, reading(b) as reader:
            waiter, _ = await awaited(b, reader)
            server.kill()
            assert code(await waiter.next(20)) == "queue_unavailable"
            server.start()


async def test_a_job_that_was_not_accepted_yet_is_not_called_lost(redis_url: str):
    async with bench(redis_url) as b:
        reader = ReplyReader(b.redis, b.queue, PREFIX)
        waiter = reader.register(JOB)
        waiter.registered = 0.0
        for _ in range(3):
            await reader._check()
        assert not waiter.ended


async def test_a_reader_that_stops_leaves_nothing(redis_url: str):
    async with bench(redis_url) as b:
        async with reading(b) as reader:
            assert await b.redis.smembers(f"{PREFIX}apis") == {reader.name.encode()}
        assert await b.redis.keys("*") == []
