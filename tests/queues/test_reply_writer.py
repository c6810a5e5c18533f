"""The writing side of answers: one order per api process, and knowing when nobody reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from queues import frames, reply_writer
from queues.attempts import Attempt, Finish, Outcome
from queues.frames import Frame, FrameKind
from queues.reply_writer import ReplyWriter
from tests.queues.builders import PREFIX, Bench, bench, eventually, spec

API = "api"
KEY = f"{PREFIX}reply:{API}"


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[tuple[Bench, ReplyWriter]]:
    async with bench(url) as b:
        yield b, ReplyWriter(b.redis, b.replica(), PREFIX)


async def begun(b: Bench, **changes: object) -> Attempt:
    """An attempt whose answer an api process waits for."""
    await b.queue.accept(spec(stream=True, **changes), "direct", reply_to=API)
    attempt = await b.replica().claim()
    assert attempt is not None
    return attempt


async def entries(b: Bench) -> list[bytes]:
    return [entry[b"b"] for _, entry in await b.redis.xrange(KEY) if entry[b"b"]]


async def written(b: Bench) -> list[Frame]:
    return [frame for entry in await entries(b) for frame in frames.unpack(entry)]


async def stream(b: Bench, writer: ReplyWriter, attempt: Attempt, chunks: int) -> None:
    """What a replica does with a stream: first part, further parts at any time, the end."""
    assert await writer.first(attempt, b"0")
    for seq in range(1, chunks):
        writer.chunk(attempt, seq, str(seq).encode())
        if seq % 7 == 0:
            await asyncio.sleep(0)
        if seq % 50 == 0:
            await writer.drain(attempt)
    await writer.drain(attempt)
    end = frames.pack(attempt.id, FrameKind.END, attempt.token, chunks, b"")
    await b.replica().finish(attempt, Finish(outcome=Outcome.SUCCEEDED, frame=end), claim_next=False)


async def test_streams_at_once_keep_their_own_order(redis_url: str):
    async with writing(redis_url) as (b, writer):
        attempts = [await begun(b) for _ in range(8)]
        await asyncio.gather(*(stream(b, writer, attempt, 200) for attempt in attempts))
        seen: dict[str, list[tuple[str, int]]] = {attempt.id: [] for attempt in attempts}
        for frame in await written(b):
            seen[frame.job_id].append((frame.kind.value, frame.seq))
        for attempt in attempts:
            assert seen[attempt.id] == [*(("C", i) for i in range(200)), ("D", 200)]


async def test_the_first_part_follows_what_waits_for_the_same_reader(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reply_writer, "TICK", 60)
    async with writing(redis_url) as (b, writer):
        one, two = await begun(b), await begun(b)
        await writer.first(one, b"0")
        writer.chunk(one, 1, b"1")
        await writer.first(two, b"0")
        assert [(f.job_id, f.seq) for f in await written(b)] == [(one.id, 0), (one.id, 1), (two.id, 0)]


async def test_chunks_of_one_tick_are_one_entry(redis_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reply_writer, "TICK", 0.5)
    async with writing(redis_url) as (b, writer):
        attempt = await begun(b)
        await writer.first(attempt, b"0")
        for seq in range(1, 50):
            writer.chunk(attempt, seq, b"x")
            await asyncio.sleep(0)
        await eventually(lambda: all_written(b, 50))
        assert len(await entries(b)) == 2


async def all_written(b: Bench, count: int) -> bool:
    return len(await written(b)) == count


async def test_an_attempt_that_is_over_sends_nothing(redis_url: str):
    async with writing(redis_url) as (b, writer):
        attempt = await begun(b)
        await b.expire_leases()
        await b.reap()
        assert not await writer.first(attempt, b"0")
        assert await written(b) == []


async def test_what_could_not_be_written_is_written_later_in_order(redis_url: str):
    async with writing(redis_url) as (b, writer):
        attempt = await begun(b)
        await writer.first(attempt, b"0")
        await b.redis.config_set("maxmemory", "1kb")
        writer.chunk(attempt, 1, b"1")
        drained = asyncio.create_task(writer.drain(attempt))
        await eventually(lambda: refusals(b))
        assert not drained.done()
        await b.redis.config_set("maxmemory", "0")
        writer.chunk(attempt, 2, b"2")
        await drained
        assert [f.seq for f in await written(b)] == [0, 1, 2]


async def refusals(b: Bench) -> bool:
    """True when Redis has refused a write."""
    return "errorstat_OOM" in await b.redis.info("errorstats")


async def test_a_reader_that_is_gone_is_noticed_by_writing(redis_url: str):
    async with writing(redis_url) as (b, writer):
        attempt = await begun(b)
        await writer.first(attempt, b"0")
        assert not writer.unreachable(attempt)
        await b.redis.delete(KEY)
        writer.chunk(attempt, 1, b"1")
        await writer.drain(attempt)
        assert writer.unreachable(attempt)
        assert await b.redis.exists(KEY) == 0


async def test_a_reader_that_is_gone_is_noticed_without_writing(redis_url: str):
    async with writing(redis_url) as (b, writer):
        attempt = await begun(b)
        await writer.check({API})
        assert not writer.unreachable(attempt)
        await b.redis.delete(KEY)
        await writer.check({API})
        assert writer.unreachable(attempt)


async def test_a_reader_that_lags_in_time_is_unreachable(redis_url: str):
    async with writing(redis_url) as (b, writer):
        attempt = await begun(b)
        await b.redis.delete(KEY)
        now = (await b.redis.time())[0]
        await b.redis.xadd(KEY, {"b": b"old"}, id=f"{(now - 12) * 1000}-0")
        await writer.check({API})
        assert writer.unreachable(attempt)
        await b.redis.xtrim(KEY, maxlen=0, approximate=False)
        await writer.check({API})
        assert not writer.unreachable(attempt)


async def test_a_reader_that_lags_in_bytes_is_unreachable(redis_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reply_writer, "LAG_BYTES", 100_000)
    async with writing(redis_url) as (b, writer):
        attempt = await begun(b)
        await writer.check({API})
        assert not writer.unreachable(attempt)
        await writer.first(attempt, b"x" * 200_000)
        await writer.check({API})
        assert writer.unreachable(attempt)


async def test_readers_nobody_waits_for_are_forgotten(redis_url: str):
    async with writing(redis_url) as (b, writer):
        attempt = await begun(b)
        await writer.first(attempt, b"0")
        await writer.check(set())
        assert writer._destinations == {}


async def test_a_job_without_a_reader_is_marked_as_begun(redis_url: str):
    async with writing(redis_url) as (b, writer):
        attempt = await b.running()
        assert await writer.first(attempt, b"0")
        writer.chunk(attempt, 1, b"1")
        await writer.drain(attempt)
        assert not writer.unreachable(attempt)
        assert await b.field(attempt.id, "first") == "1"


async def test_what_is_kept_of_a_job_that_redis_forgot_stays_nowhere(redis_url: str):
    async with writing(redis_url) as (b, writer):
        attempt = await begun(b, kept=True)
        key = f"{PREFIX}events:{attempt.id}"
        await writer.keep(attempt, b"one")
        assert (await b.redis.xrevrange(key, count=1))[0][1] == {b"name": b"chunk", b"data": b"one"}
        await b.redis.flushall()
        await writer.keep(attempt, b"two")
        assert not await b.redis.exists(key)
