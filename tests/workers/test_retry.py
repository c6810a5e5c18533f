"""When an attempt that failed is made again: the policy, and a runner that follows it on a real Redis."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from inferq.job import JobState
from inferq.retry import INTERACTIVE_DELAY, FaultClass, RetryPolicy, classify
from queues.attempts import Outcome
from tests.workers.engine_stub import answered, hanging_up, silent
from tests.workers.runner_site import Site

POLICY = RetryPolicy(delay=5.0, max_delay=60.0, wait=600.0)
HUB = b'{"error": {"message": "the hub is away", "code": "hub_unreachable"}}'


def longest(_low: float, high: float) -> float:
    return high


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("engine_crashed", FaultClass.TRANSIENT),
        ("hub_unreachable", FaultClass.TRANSIENT),
        ("out_of_memory", FaultClass.RESOURCE),
        ("replica_lost", FaultClass.LOST),
        ("lease_lost", FaultClass.LOST),
        ("invalid_value", FaultClass.PERMANENT),
        ("context_length_exceeded", FaultClass.PERMANENT),
        ("a code that an engine made up", FaultClass.PERMANENT),
    ],
)
def test_classes(code: str, kind: FaultClass) -> None:
    assert classify(code) is kind


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [
        POLICY.pause("engine_crashed", attempt, draw=longest) for attempt in (1, 2, 3, 4, 5, 6, 100, 10**9)
    ]
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0]


def test_pauses_are_drawn_from_none_to_the_longest() -> None:
    seen: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        seen.append((low, high))
        return 1.5

    assert POLICY.pause("engine_crashed", 2, draw=draw) == 1.5
    assert seen == [(0.0, 10.0)]
    assert all(0.0 <= POLICY.pause("engine_crashed", 3) <= 20.0 for _ in range(100))


@pytest.mark.parametrize("code", ["replica_lost", "out_of_memory", "invalid_value"])
def test_only_what_may_pass_is_waited_for(code: str) -> None:
    assert POLICY.pause(code, 3, draw=longest) == 0.0


@pytest.mark.parametrize(
    ("waited", "attempt", "pause"),
    [(0.0, 1, INTERACTIVE_DELAY), (0.0, 4, 4.0), (599.0, 4, 0.5), (600.0, 4, 0.0), (9999.0, 1, 0.0)],
)
def test_who_waits_for_an_answer_waits_less(waited: float, attempt: int, pause: float) -> None:
    assert POLICY.pause("engine_crashed", attempt, waited=waited, draw=longest) == pause


def test_a_shorter_configured_pause_holds_for_callers_too() -> None:
    policy = replace(POLICY, delay=0.1)
    assert policy.pause("engine_crashed", 1, waited=0.0, draw=longest) == 0.1


async def due(site: Site, job_id: str) -> float | None:
    return await site.redis.zscore("inferq:later", job_id)


@pytest.mark.parametrize("script", [hanging_up, answered(b"oops", 500), answered(HUB, 503)])
async def test_a_fault_that_may_pass_is_tried_again_later(site: Site, script: Callable[..., object]) -> None:
    site.runner.endings._retry = RetryPolicy(delay=1000.0, max_delay=1000.0)
    before = time.time()
    job = await site.run(script, durable=True, kept=True)
    assert (job.state, job.attempt) == (JobState.SCHEDULED, 1)
    when = await due(site, job.id)
    assert when is not None
    assert before < when <= time.time() + 1000.0
    assert await site.attempts.claim() is None


async def test_a_caller_is_kept_waiting_less(site: Site) -> None:
    site.runner.endings._retry = RetryPolicy(delay=1000.0, max_delay=1000.0)
    job = await site.run(hanging_up, created_at=time.time())
    when = await due(site, job.id)
    assert when is not None
    assert when <= time.time() + INTERACTIVE_DELAY


async def test_a_callers_pause_does_not_hang_on_the_clock_of_its_gateway(site: Site) -> None:
    site.runner.endings._retry = RetryPolicy(delay=1000.0, max_delay=1000.0, wait=600.0)
    job = await site.run(hanging_up, created_at=time.time() - 3600)
    assert job.state is JobState.SCHEDULED


async def test_a_lost_attempt_is_made_again_at_once(site: Site) -> None:
    site.runner.endings._retry = RetryPolicy(delay=1000.0)
    attempt = await site.claim()
    site.stub.script = silent
    task = await site.begun(attempt)
    site.runner.running[attempt.token].stop("the lease could not be renewed", Outcome.RETRY)
    await task
    assert (await site.job(attempt.id)).state is JobState.QUEUED
    assert await due(site, attempt.id) is None


async def test_the_last_attempt_fails_without_a_pause(site: Site) -> None:
    site.runner.endings._retry = RetryPolicy(delay=1000.0)
    job = await site.run(hanging_up, max_attempts=1)
    assert job.state is JobState.FAILED
    assert await due(site, job.id) is None
