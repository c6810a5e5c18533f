"""The promises about order, shown on the scripts: shares, no credit from idling, lanes, and no starvation."""

import heapq
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.queues.ready_set import ReadySet

HEAD_START = {"high": 32.0, "medium": 8.0, "low": 0.0}
MODEST = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
SECONDS = st.integers(min_value=1, max_value=32).map(lambda eighths: eighths / 8)


@contextmanager
def ready_set(url: str) -> Iterator[ReadySet]:
    ready = ReadySet(url, HEAD_START)
    try:
        yield ready
    finally:
        ready.close()


class Slots:
    """Replicas that serve a ready set in simulated time. `served` is device seconds of ended and running jobs."""

    def __init__(self, ready: ReadySet, count: int):
        self.ready = ready
        self.free = count
        self.now = 0.0
        self.running: list[tuple[float, str]] = []
        self.owner: dict[str, str] = {}
        self.actual: dict[str, float] = {}
        self.served: dict[str, float] = defaultdict(float)
        self.started: list[str] = []

    def accept(
        self, tenant: str, lane: str, est: float, *, actual: float | None = None, weight: float = 1.0
    ) -> str:
        job_id = self.ready.accept(tenant, lane, est, weight=weight)
        self.owner[job_id] = tenant
        self.actual[job_id] = est if actual is None else actual
        return job_id

    def claim(self) -> None:
        while self.free and (job_id := self.ready.claim()) is not None:
            self.free -= 1
            self.started.append(job_id)
            heapq.heappush(self.running, (self.now + self.actual[job_id], job_id))

    def step(self) -> None:
        """Fill the slots, then go on to the end of the next job."""
        self.claim()
        if not self.running:
            return
        self.now, job_id = heapq.heappop(self.running)
        self.served[self.owner[job_id]] += self.actual[job_id]
        self.ready.finish(job_id, "failed", self.actual[job_id])
        self.free += 1

    def waits(self, tenant: str) -> bool:
        return tenant in self.ready.tenants()


@MODEST
@given(
    slots=st.integers(1, 3),
    weights=st.tuples(st.sampled_from([1.0, 2.0, 4.0]), st.sampled_from([1.0, 2.0])),
    jobs=st.lists(st.tuples(SECONDS, SECONDS, SECONDS, SECONDS), min_size=10, max_size=40),
)
def test_backlogged_tenants_share_by_weight(redis_url: str, slots: int, weights: tuple, jobs: list):
    """They differ by at most (D + 1)(c_i / w_i + c_j / w_j), c being the longest job, estimated or real."""
    with ready_set(redis_url) as ready:
        work = Slots(ready, slots)
        for est_a, actual_a, est_b, actual_b in jobs:
            work.accept("a", "medium", est_a, actual=actual_a, weight=weights[0])
            work.accept("b", "medium", est_b, actual=actual_b, weight=weights[1])
        longest_a, longest_b = max(max(j[:2]) for j in jobs), max(max(j[2:]) for j in jobs)
        bound = (slots + 1) * (longest_a / weights[0] + longest_b / weights[1])
        while work.waits("a") and work.waits("b"):
            assert abs(work.served["a"] / weights[0] - work.served["b"] / weights[1]) <= bound
            work.step()


@MODEST
@given(
    ahead=st.lists(SECONDS, min_size=1, max_size=20),
    lanes=st.tuples(*[st.sampled_from(sorted(HEAD_START))] * 2),
)
def test_shares_differ_by_one_head_start_more_across_lanes(redis_url: str, ahead: list, lanes: tuple):
    with ready_set(redis_url) as ready:
        work = Slots(ready, 1)
        for seconds in ahead * 4:
            work.accept("a", lanes[0], seconds)
            work.accept("b", lanes[1], seconds)
        bound = 2 * (max(ahead) + max(ahead)) + abs(HEAD_START[lanes[0]] - HEAD_START[lanes[1]])
        while work.waits("a") and work.waits("b"):
            assert abs(work.served["a"] - work.served["b"]) <= bound
            work.step()


@MODEST
@given(flood=st.lists(SECONDS, min_size=1, max_size=15), idle=st.integers(20, 40), back=SECONDS)
def test_idling_gives_no_credit(redis_url: str, flood: list, idle: int, back: float):
    """Whoever comes back is at most one head start behind those who stayed, however long it was away."""
    with ready_set(redis_url) as ready:
        work = Slots(ready, 1)
        for seconds in flood:
            work.accept("flooder", "medium", seconds)
        while work.waits("flooder"):
            work.step()
        for _ in range(idle + 30):
            work.accept("steady", "medium", 1.0)
        for _ in range(idle):
            work.step()
        before = dict(work.served)
        for _ in range(min(int(30 / back), 100)):
            work.accept("flooder", "medium", back)
        while work.waits("flooder") and work.waits("steady"):
            work.step()
            gained = {
                tenant: work.served[tenant] - before.get(tenant, 0.0) for tenant in ("flooder", "steady")
            }
            bound = 2 * (back + max(1.0, *flood)) + HEAD_START["medium"]
            assert gained["flooder"] - gained["steady"] <= bound


@MODEST
@given(low=st.lists(SECONDS, min_size=2, max_size=30), served=st.integers(0, 10), est=SECONDS)
def test_own_high_overtakes_own_low(redis_url: str, low: list, served: int, est: float):
    with ready_set(redis_url) as ready:
        work = Slots(ready, 1)
        for seconds in low:
            work.accept("a", "low", seconds)
        for _ in range(min(served, len(low) - 1)):
            work.step()
        assert work.accept("a", "high", est) == ready.claim()


@MODEST
@given(low=SECONDS, high=SECONDS, others=st.lists(SECONDS, max_size=3))
def test_a_low_job_waits_its_share_and_the_head_starts(redis_url: str, low: float, high: float, others: list):
    """However many high jobs of its own tenant and of others keep coming, it starts within a stated work."""
    with ready_set(redis_url) as ready:
        work = Slots(ready, 1)
        tenants = ["own", *(f"other{i}" for i in range(len(others)))]
        est = dict(zip(tenants, [high, *others], strict=True))
        waiting = work.accept("own", "low", low)
        first = HEAD_START["high"] + est["own"]
        bound = sum(first + HEAD_START["high"] + 2 * (est[tenant] + high) for tenant in tenants)
        while waiting not in work.started:
            for tenant in tenants:
                while sum(1 for m in ready.members(tenant) if m.startswith("h")) < 2:
                    work.accept(tenant, "high", est[tenant])
            work.step()
            assert work.now <= bound


@MODEST
@given(sizes=st.lists(SECONDS, min_size=2, max_size=30), lane=st.sampled_from(sorted(HEAD_START)))
def test_one_tenant_and_lane_is_served_in_order_of_arrival(redis_url: str, sizes: list, lane: str):
    with ready_set(redis_url) as ready:
        work = Slots(ready, 1)
        accepted = [work.accept("a", lane, seconds) for seconds in sizes]
        for _ in sizes:
            work.step()
        assert work.started == accepted


@MODEST
@given(many=st.integers(50, 100), est=SECONDS)
def test_one_job_does_not_wait_for_somebody_elses_thousands(redis_url: str, many: int, est: float):
    with ready_set(redis_url) as ready:
        work = Slots(ready, 1)
        for _ in range(many):
            work.accept("flooder", "medium", est)
        for _ in range(5):
            work.step()
        mine = work.accept("somebody", "medium", est)
        for _ in range(2):
            work.step()
        assert mine in work.started


def test_cancelled_jobs_do_not_hold_their_lane_back(redis_url: str):
    """Who takes back what waited in a lane is where it was before."""
    ready = ReadySet(redis_url, {"high": 300.0, "medium": 60.0, "low": 0.0})
    try:
        for job_id in [ready.accept("a", "high", 30.0) for _ in range(20)]:
            ready.cancel(job_id)
        high = ready.accept("a", "high", 1.0)
        low = [ready.accept("a", "low", 1.0) for _ in range(8)]
        assert [ready.claim() for _ in range(9)] == [high, *low]
    finally:
        ready.close()
