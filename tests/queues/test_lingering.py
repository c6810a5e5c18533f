"""Slots that found nothing: accept wakes them one by one, and wants a doorbell when none is left."""

from queues.attempts import Attempts
from tests.queues.builders import DONE, MODEL, PREFIX, Bench, bench, spec

FIRST, SECOND, THIRD = "1" * 16, "2" * 16, "3" * 16


async def wakes(b: Bench, replica: str) -> list[str]:
    entries = await b.redis.xrange(f"{PREFIX}ctl:{replica}")
    return [entry[b"wake"].decode() for _, entry in entries]


async def bell_wanted(b: Bench) -> bool:
    """Accept a job; whether its doorbell is to be rung."""
    standing = await b.queue.accept(spec(), "direct")
    assert standing is not None
    return standing.bell_wanted


async def lingers(attempts: Attempts, slot: str) -> None:
    assert await attempts.claim(slot) is None


async def test_a_job_wakes_the_slot_that_waits_longest(redis_url: str):
    async with bench(redis_url) as b:
        await lingers(b.replica("r1"), FIRST)
        await lingers(b.replica("r2"), SECOND)
        await lingers(b.replica("r1"), THIRD)
        assert not await bell_wanted(b)
        assert (await wakes(b, "r1"), await wakes(b, "r2")) == ([FIRST], [])
        assert not await bell_wanted(b)
        assert not await bell_wanted(b)
        assert (await wakes(b, "r1"), await wakes(b, "r2")) == ([FIRST, THIRD], [SECOND])
        assert await b.redis.ttl(f"{PREFIX}ctl:r1") > 0, "its name may never come back"


async def test_each_slot_is_woken_once(redis_url: str):
    async with bench(redis_url) as b:
        await lingers(b.replica(), FIRST)
        assert [await bell_wanted(b) for _ in range(3)] == [False, True, True]


async def test_a_slot_whose_time_is_over_is_not_woken(redis_url: str):
    async with bench(redis_url) as b:
        assert await b.scripts("claim", "op", MODEL, "replica", "a" * 16, 15, FIRST, 0) == []
        assert await bell_wanted(b)
        assert await wakes(b, "replica") == []


async def test_a_slot_without_a_name_does_not_linger(redis_url: str):
    async with bench(redis_url) as b:
        assert await b.replica().claim() is None
        assert await bell_wanted(b)


async def test_a_slot_that_has_work_does_not_linger(redis_url: str):
    async with bench(redis_url) as b:
        await b.accepted()
        assert await b.replica().claim(FIRST) is not None
        assert await bell_wanted(b)


async def test_a_slot_that_looked_by_itself_is_not_woken_while_it_works(redis_url: str):
    async with bench(redis_url) as b:
        await lingers(b.replica(), FIRST)
        await lingers(b.replica(), SECOND)
        assert not await bell_wanted(b)
        # The wake is for the first; the second finds the job before it.
        assert await b.replica().claim(SECOND) is not None
        assert await bell_wanted(b)


async def test_a_slot_lingers_after_its_last_job(redis_url: str):
    async with bench(redis_url) as b:
        attempt = await b.running()
        await b.accepted()
        state, following = await b.replica().finish(attempt, DONE, claim_next=True, slot=FIRST)
        assert (state, following is None) == ("succeeded", False)
        assert await bell_wanted(b)
        leased = [following, await b.replica().claim()]
        for attempt in leased:
            assert attempt is not None
            await b.replica().finish(attempt, DONE, claim_next=True, slot=FIRST)
        assert not await bell_wanted(b)
        assert await wakes(b, "replica") == [FIRST]


async def test_a_replica_takes_its_slots_off_the_list(redis_url: str):
    async with bench(redis_url) as b:
        for slot in (FIRST, SECOND):
            await lingers(b.replica("r1"), slot)
        await lingers(b.replica("r2"), THIRD)
        await b.replica("r1").linger_no_more([FIRST, SECOND])
        assert not await bell_wanted(b)
        assert (await wakes(b, "r1"), await wakes(b, "r2")) == ([], [THIRD])
