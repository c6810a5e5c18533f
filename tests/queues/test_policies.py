"""The orders that are there for comparison: first come, first served, and the shortest first."""

import random

import pytest
import redis as redis_library

from queues.scripts import layout_of
from tests.queues.builders import PREFIX
from tests.queues.ready_set import ReadySet

HEAD_START = {"high": 300.0, "medium": 60.0, "low": 0.0}


def served(ready: ReadySet) -> list[str]:
    order = []
    while (job_id := ready.claim()) is not None:
        order.append(job_id)
        ready.finish(job_id, "succeeded", 7.0)
    return order


def filled(ready: ReadySet, seed: int) -> dict[str, float]:
    """Jobs of several tenants and lanes in the order in which they came, with their estimates."""
    rng = random.Random(seed)
    return {
        ready.accept(rng.choice("abc"), rng.choice(sorted(HEAD_START)), seconds): seconds
        for seconds in (rng.uniform(0.1, 50.0) for _ in range(60))
    }


@pytest.mark.parametrize("policy", ["fcfs", "min_min"])
@pytest.mark.parametrize("closed", [None, "high"])
def test_jobs_are_served_by_time_or_length_alone(redis_url: str, policy: str, closed: str | None) -> None:
    ready = ReadySet(redis_url, HEAD_START, policy=policy)
    try:
        est = filled(ready, 1)
        if closed:  # and open again, so that all of them are served in the end
            ready.control(**{f"pause__lane__{closed}": "x"})
            open_only = [ready.claim() for _ in range(5)]
            ready.control(**{f"pause__lane__{closed}": None})
        else:
            open_only = []
        rest = [job_id for job_id in est if job_id not in open_only]
        expected = rest if policy == "fcfs" else sorted(rest, key=lambda job_id: est[job_id])
        told = {job_id: ready.standing(job_id)[0] for job_id in rest}
        assert served(ready) == expected
        assert [told[job_id] for job_id in expected] == list(range(len(expected)))
    finally:
        ready.close()


def test_a_job_that_comes_back_keeps_its_place(redis_url: str) -> None:
    ready = ReadySet(redis_url, HEAD_START, policy="fcfs")
    try:
        est = filled(ready, 2)
        first = ready.claim()
        assert first is not None
        ready.finish(first, "handback")
        assert served(ready) == list(est)
    finally:
        ready.close()


def test_orders_are_not_mixed(redis_url: str) -> None:
    """Scores of one policy mean nothing in another, so they are different layouts."""
    fair, other = ReadySet(redis_url, HEAD_START), ReadySet(redis_url, HEAD_START, policy="fcfs")
    try:
        assert layout_of(fair.queue) != layout_of(other.queue)
        fair.redis.set(f"{PREFIX}layout", layout_of(fair.queue))
        with pytest.raises(redis_library.ResponseError, match="LAYOUT"):
            other.accept("a", "low", 1.0)
    finally:
        fair.close()
        other.close()
