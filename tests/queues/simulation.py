"""What the order of a queue means to those who wait, in simulated time: the real scripts, replicas that only count.

Each scenario is work that comes at set times, and one number of what became of it. Nothing is random: the numbers are
the same everywhere. `python -m tests.queues.simulation` writes them down for all policies.
"""

import heapq
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.queues.builders import Server
from tests.queues.ready_set import ReadySet

HEAD_START = {"high": 300.0, "medium": 60.0, "low": 0.0}
POLICIES = ("fair", "fcfs", "min_min")


@dataclass(frozen=True)
class Arrival:
    """A job: when it comes, of whom, and how long it runs, in seconds. `est`: what is believed before."""

    at: float
    tenant: str
    seconds: float = 1.0
    lane: str = "medium"
    est: float | None = None


@dataclass(frozen=True)
class Served:
    """A job that has ended."""

    arrival: Arrival
    began: float

    @property
    def wait(self) -> float:
        return self.began - self.arrival.at

    @property
    def ended(self) -> float:
        return self.began + self.arrival.seconds


def serve(
    ready: ReadySet, arrivals: Sequence[Arrival], slots: int, *, outage: tuple[float, float] = (0.0, 0.0)
) -> list[Served]:
    """Serve all of it; nothing begins during the outage."""
    coming = sorted(arrivals, key=lambda arrival: arrival.at)[::-1]
    jobs: dict[str, Arrival] = {}
    running: list[tuple[float, str]] = []
    served: list[Served] = []
    now = 0.0
    while coming or running or len(served) < len(arrivals):
        while coming and coming[-1].at <= now:
            arrival = coming.pop()
            est = arrival.seconds if arrival.est is None else arrival.est
            jobs[ready.accept(arrival.tenant, arrival.lane, est)] = arrival
        while running and running[0][0] <= now:
            _, job_id = heapq.heappop(running)
            ready.finish(job_id, "failed", jobs[job_id].seconds)
        if not outage[0] <= now < outage[1]:
            while len(running) < slots and (job_id := ready.claim()) is not None:
                served.append(Served(jobs[job_id], now))
                heapq.heappush(running, (now + jobs[job_id].seconds, job_id))
        after = [coming[-1].at] if coming else []
        after += [running[0][0]] if running else []
        after += [outage[1]] if now < outage[1] else []
        now = min(after, default=now)
    return served


def longest(served: Sequence[Served], of: Callable[[Arrival], bool]) -> float:
    """The longest wait of some of the jobs, in seconds."""
    return max(each.wait for each in served if of(each.arrival))


def flooder_returns(ready: ReadySet) -> float:
    """Longest wait of somebody who steadily uses four tenths, when a tenant comes back from idling with 500 jobs."""
    flood = [Arrival(at, "flood") for at in [0.0] * 500 + [1300.0] * 500]
    steady = [Arrival(1000 + 1.25 * number, "steady") for number in range(600)]
    return longest(serve(ready, flood + steady, 2), lambda arrival: arrival.tenant == "steady")


def own_high(ready: ReadySet) -> float:
    """Longest wait of a tenant's high jobs behind a thousand low ones of its own."""
    low = [Arrival(0.0, "one", lane="low")] * 1000
    high = [Arrival(10.0 + 40 * number, "one", lane="high") for number in range(10)]
    return longest(serve(ready, low + high, 2), lambda arrival: arrival.lane == "high")


def wrong_costs(ready: ReadySet) -> float:
    """Share of device seconds of a tenant whose jobs take ten times what is believed, beside another one, both with
    more than can be done.
    """
    wrong = [Arrival(0.0, "wrong", seconds=10.0, est=1.0)] * 300
    right = [Arrival(0.0, "right")] * 600
    served = serve(ready, wrong + right, 2)
    both = min(
        max(each.ended for each in served if each.arrival.tenant == name) for name in ("wrong", "right")
    )
    seconds: dict[str, float] = defaultdict(float)
    for each in served:
        if each.ended <= both:
            seconds[each.arrival.tenant] += each.arrival.seconds
    return seconds["wrong"] / sum(seconds.values())


def many_tenants(ready: ReadySet) -> float:
    """Longest wait of two hundred tenants with a job each, beside one with two thousand."""
    single = [Arrival(5.5 + number, f"single-{number}") for number in range(200)]
    served = serve(ready, [Arrival(0.0, "flood")] * 2000 + single, 2)
    return longest(served, lambda arrival: arrival.tenant != "flood")


def after_an_outage(ready: ReadySet) -> float:
    """Longest wait of a tenant that comes after ten minutes without a replica, in which another one went on sending
    what two replicas can just do.
    """
    much = [Arrival(0.6 * number, "much") for number in range(3000)]
    late = [Arrival(902.0 + 2.0 * number, "late") for number in range(400)]
    served = serve(ready, much + late, 2, outage=(300.0, 900.0))
    return longest(served, lambda arrival: arrival.tenant == "late")


def long_job(ready: ReadySet) -> float:
    """Wait of one long job while short ones of somebody else take all there is for ten minutes."""
    short = [Arrival(0.5 * number, "short") for number in range(1300)]
    served = serve(ready, [*short, Arrival(10.0, "long", seconds=30.0)], 2)
    return longest(served, lambda arrival: arrival.tenant == "long")


def measured(redis_url: str, scenario: Callable[[ReadySet], float], policy: str) -> float:
    ready = ReadySet(redis_url, HEAD_START, policy=policy)
    try:
        return scenario(ready)
    finally:
        ready.close()


SCENARIOS: dict[Callable[[ReadySet], float], str] = {
    flooder_returns: "a flooder returns from idling: longest wait of steady work, s",
    own_high: "own high jobs behind own low ones: longest wait, s",
    wrong_costs: "costs ten times wrong: share of that tenant, of 0.5",
    many_tenants: "many tenants beside a flooder: longest wait of theirs, s",
    after_an_outage: "after an outage: longest wait of a tenant that comes then, s",
    long_job: "one long job among short ones: its wait, s",
}


def main() -> None:
    """A table of all scenarios and policies, on a Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="iq-") as folder, Server(Path(folder)) as server:
        print(f"| | {' | '.join(POLICIES)} |\n| --- |{' --- |' * len(POLICIES)}")
        for scenario, text in SCENARIOS.items():
            numbers = [measured(server.url, scenario, policy) for policy in POLICIES]
            print(f"| {text} | {' | '.join(f'{number:.2f}' for number in numbers)} |", flush=True)


if __name__ == "__main__":
    main()
