"""The circuit breaker: its states, and a replica whose engine keeps failing, on a real Redis with a real engine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from inferq.job import JobState
from queues.capacity import Capacities
from queues.presence import Presence
from tests.workers.engine_stub import answered, hanging_up
from tests.workers.runner_site import Site as RunnerSite
from tests.workers.service_site import Site, service_site, until
from workers.breaker import LONGEST, Breaker, Circuit


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(2, 10.0, clock=clock)
    breaker.failed("a")
    breaker.failed("b")
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = Breaker(2, 10.0, clock=Clock())
    for _ in range(3):
        breaker.failed("a")
        breaker.succeeded()
    assert breaker.state is Circuit.CLOSED
    breaker.failed("a")
    assert breaker.allows(others=9)
    breaker.failed("b")
    assert breaker.state is Circuit.OPEN
    assert not breaker.allows(others=0)


def test_a_job_that_fails_again_and_again_is_one_failure() -> None:
    breaker = Breaker(2, 10.0, clock=Clock())
    for _ in range(5):
        breaker.failed("a")
    assert breaker.state is Circuit.CLOSED


def test_all_jobs_of_one_death_are_one_failure() -> None:
    breaker, first, second = Breaker(2, 10.0, clock=Clock()), object(), object()
    for job in "abc":
        breaker.failed(job, death=first)
    assert breaker.state is Circuit.CLOSED
    breaker.failed("d", death=second)
    assert breaker.state is Circuit.OPEN


def test_one_job_is_tried_and_its_success_closes() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert breaker.left == 10.0
    clock.now = 10.0
    assert breaker.state is Circuit.HALF_OPEN
    assert (breaker.allows(others=0), breaker.allows(others=1), breaker.left) == (True, False, 0.0)
    breaker.succeeded()
    assert breaker.state is Circuit.CLOSED
    breaker.failed("a")
    assert breaker.state is Circuit.CLOSED


def test_its_failure_opens_again_for_twice_as_long_up_to_the_longest() -> None:
    clock = Clock()
    breaker = opened(clock)
    seen = []
    for _ in range(40):
        seen.append(breaker.left)
        clock.now += breaker.left
        assert breaker.state is Circuit.HALF_OPEN
        breaker.failed("a")
    assert seen[:3] == [10.0, 20.0, 40.0]
    assert seen[-1] == LONGEST


def test_late_news_of_what_opened_it_change_nothing() -> None:
    clock, death = Clock(), object()
    breaker = Breaker(1, 10.0, clock=clock)
    breaker.failed("a", death=death)
    breaker.succeeded()
    breaker.failed("b", death=death)
    assert (breaker.state, breaker.left) == (Circuit.OPEN, 10.0)
    clock.now = 10.0
    breaker.failed("c", death=death)
    assert breaker.state is Circuit.HALF_OPEN


async def test_what_a_runner_tells_its_breaker(site: RunnerSite) -> None:
    site.runner.endings.breaker = breaker = Breaker(2, 1000.0)
    for script in (answered(b"x", 500), answered(b"{}", 400), hanging_up, answered(b"{}"), hanging_up):
        await site.run(script, max_attempts=1)
        assert breaker.state is Circuit.CLOSED
    site.runner._session = lambda: None
    await site.run(answered(b"{}"), max_attempts=1)
    assert breaker.state is Circuit.CLOSED


@pytest.fixture
def slots() -> int:
    return 1


@pytest.fixture
async def failing(redis_url: str, short_dir: Path, slots: int) -> AsyncIterator[Site]:
    """A replica whose breaker opens after two failures, for half a second of a clock that stands."""
    processing = {"breaker_failures": 2, "breaker_delay": 0.5, "retry_delay": 0}
    async with service_site(redis_url, short_dir, processing=processing, slots=slots) as site:
        site.service._breaker._clock = Clock()
        yield site


async def test_a_replica_whose_engine_keeps_failing_takes_nothing_for_a_while(failing: Site) -> None:
    service, clock = failing.service, failing.service._breaker._clock
    assert isinstance(clock, Clock)
    jobs = [await failing.accept("!error", max_attempts=1) for _ in range(2)]
    waiting = [await failing.accept(text, max_attempts=1) for text in ("!error", "x", "x")]
    await service.serve()
    for job_id in jobs:
        await failing.ends(job_id, JobState.FAILED)
    assert service._breaker.state is Circuit.OPEN
    await service.serve()
    await service._look()
    assert (await failing.ends(waiting[0], JobState.QUEUED)).attempt == 0
    await service._show()
    (shown,) = await Presence(failing.redis, "inferq:").replicas()
    assert (shown.circuit, shown.circuit_left) == ("open", 0.5)
    clock.now = 0.5
    await until(_one_by_one(failing, waiting[0]))
    assert (service._breaker.state, service._breaker.left) == (Circuit.OPEN, 1.0)
    clock.now = 2.0
    for job_id in waiting[1:]:
        await failing.finished(job_id)
    assert service._breaker.state is Circuit.CLOSED


async def test_gateways_see_that_it_rests_and_that_it_tries_again(failing: Site) -> None:
    service, clock = failing.service, failing.service._breaker._clock
    assert isinstance(clock, Clock)

    async def rests() -> float | None:
        await service._show()
        return await Capacities(failing.queue, service._settings).rests("m")

    assert await rests() is None
    for job_id in [await failing.accept("!error", max_attempts=1) for _ in range(2)]:
        await service.serve()
        await failing.ends(job_id, JobState.FAILED)
    assert await rests() == 0.5
    clock.now = 0.5
    assert (await rests(), service._breaker.state) == (None, Circuit.HALF_OPEN)
    await failing.finished(await failing.accept("x"))
    assert (await rests(), service._breaker.state) == (None, Circuit.CLOSED)


def _one_by_one(site: Site, job_id: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        assert site.service._busy <= 1
        job = await site.queue.get(job_id)
        return job is not None and job.state is JobState.FAILED

    return look


@pytest.mark.parametrize("slots", [2])
async def test_the_death_of_an_engine_under_many_jobs_is_one_failure(failing: Site) -> None:
    jobs = [await failing.accept("!delay=0.5", max_attempts=2) for _ in range(2)]
    slots = [asyncio.create_task(failing.service.serve()) for _ in range(2)]
    await until(_running(failing, 2))
    failing.service._engine.kill("the test says so")
    for job_id in jobs:
        await failing.finished(job_id)
    assert failing.service._breaker.state is Circuit.CLOSED
    await asyncio.gather(*slots)


def _running(site: Site, count: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return len(await site.service._engine.runs._ask(10.0) or ()) == count

    return look
