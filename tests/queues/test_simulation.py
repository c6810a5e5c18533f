"""The bounds of the fair order in the situations that break simpler ones, and that they do break them."""

from collections.abc import Callable

import pytest

from tests.queues import simulation
from tests.queues.ready_set import ReadySet
from tests.queues.simulation import measured


@pytest.mark.parametrize(
    ("scenario", "most", "otherwise"),
    [
        # Two slots and jobs of a second: who is next waits for one that ends. Who comes back is at most one head start
        # ahead of those who worked meanwhile.
        (simulation.flooder_returns, simulation.HEAD_START["medium"] / 2 + 2.0, 200.0),
        (simulation.own_high, 1.0, 100.0),
        (simulation.many_tenants, 1.0, 500.0),
        (simulation.after_an_outage, 1.0, 200.0),
    ],
)
def test_a_wait_is_bounded_where_first_come_first_served_bounds_none(
    redis_url: str, scenario: Callable[[ReadySet], float], most: float, otherwise: float
) -> None:
    assert measured(redis_url, scenario, "fair") <= most
    assert measured(redis_url, scenario, "fcfs") >= otherwise


def test_shares_are_of_real_seconds_however_wrong_the_estimates_are(redis_url: str) -> None:
    assert measured(redis_url, simulation.wrong_costs, "fair") == pytest.approx(0.5, abs=0.05)
    assert measured(redis_url, simulation.wrong_costs, "fcfs") > 0.8


def test_a_long_job_waits_its_turn_where_the_shortest_first_lets_it_starve(redis_url: str) -> None:
    assert measured(redis_url, simulation.long_job, "fair") <= 3.0
    assert measured(redis_url, simulation.long_job, "min_min") >= 500.0
