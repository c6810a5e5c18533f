"""The scripts against the reference: the same order, virtual times and counters after any sequence of calls.

All numbers are small multiples of 1/8 and weights powers of two, so both sides calculate without rounding.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.queues.ready_set import ReadySet
from tests.queues.reference import Reference, Waiting

HEAD_START = {"high": 8.0, "medium": 2.0, "low": 0.0}
TENANTS = st.sampled_from(["a", "b", "c"])
LANES = st.sampled_from(sorted(HEAD_START))
SECONDS = st.integers(min_value=1, max_value=64).map(lambda eighths: eighths / 8)
WEIGHTS = st.sampled_from([0.5, 1.0, 2.0, 4.0])
PICK = st.integers(min_value=0, max_value=10**6)


class Orders(RuleBasedStateMachine):
    ready: ReadySet

    def __init__(self) -> None:
        super().__init__()
        self.ready.clear()
        self.reference = Reference(HEAD_START)
        self.handbacks: dict[str, int] = {}

    def some_running(self, pick: int) -> str:
        return sorted(self.reference.running)[pick % len(self.reference.running)]

    @rule(tenant=TENANTS, lane=LANES, est=SECONDS, weight=WEIGHTS, size=st.integers(0, 1000))
    def accept(self, tenant: str, lane: str, est: float, weight: float, size: int) -> None:
        job_id = self.ready.accept(tenant, lane, est, weight=weight, size=size)
        self.reference.accept(Waiting(job_id, tenant, lane, est, size), weight)

    @rule(times=st.integers(1, 4))
    def claim(self, times: int) -> None:
        for _ in range(times):
            expected = self.reference.claim()
            assert self.ready.claim() == (expected.id if expected else None)

    @precondition(lambda self: self.reference.running)
    @rule(pick=PICK, seconds=SECONDS)
    def finish(self, pick: int, seconds: float) -> None:
        job_id = self.some_running(pick)
        assert self.ready.finish(job_id, "failed", seconds) == "failed"
        self.reference.finish(job_id, seconds)

    @precondition(lambda self: self.reference.running)
    @rule(pick=PICK)
    def retry(self, pick: int) -> None:
        job_id = self.some_running(pick)
        assert self.ready.finish(job_id, "retry") == "queued"
        self.reference.put_back(job_id)

    @precondition(lambda self: self.reference.running)
    @rule(pick=PICK)
    def hand_back(self, pick: int) -> None:
        job_id = self.some_running(pick)
        assert self.ready.finish(job_id, "handback") == "queued"
        self.reference.put_back(job_id)

    @precondition(lambda self: self.reference.running)
    @rule(pick=PICK)
    def lose(self, pick: int) -> None:
        job_id = self.some_running(pick)
        assert self.ready.lose(job_id) == "queued"
        self.reference.put_back(job_id)

    @precondition(lambda self: self.reference.running)
    @rule(pick=PICK)
    def cancel_running(self, pick: int) -> None:
        job_id = self.some_running(pick)
        assert self.ready.cancel(job_id) == "running"
        self.reference.cancel(job_id)

    @precondition(lambda self: self.reference.waiting())
    @rule(pick=PICK)
    def cancel_waiting(self, pick: int) -> None:
        ids = sorted(job.id for job in self.reference.waiting())
        job_id = ids[pick % len(ids)]
        assert self.ready.cancel(job_id) == "queued"
        self.reference.cancel(job_id)

    @invariant()
    def virtual_times_agree(self) -> None:
        order = self.ready.order()
        assert float(order.get("v", 0)) == self.reference.virtual
        for name, tenant in self.reference.tenants.items():
            assert float(order[f"S:{name}"]) == tenant.virtual
            assert float(order.get(f"vt:{name}", 0)) == tenant.reached
            assert {lane: float(order[f"F:{name}:{lane}"]) for lane in tenant.lanes} == tenant.lanes

    @invariant()
    def sets_agree(self) -> None:
        busy = {name: t for name, t in self.reference.tenants.items() if t.queue}
        assert self.ready.tenants() == {name: self.reference.key(tenant) for name, tenant in busy.items()}
        for name, tenant in self.reference.tenants.items():
            assert self.ready.members(name) == {job.member: job.score for job in tenant.queue}

    @invariant()
    def counters_tell_the_truth(self) -> None:
        order, waiting = self.ready.order(), self.reference.waiting()
        assert int(order.get("jobs", 0)) == len(waiting)
        assert int(order.get("bytes", 0)) == sum(job.size for job in waiting)
        for lane in HEAD_START:
            assert int(order.get(f"n:{lane}", 0)) == sum(job.lane == lane for job in waiting)
        for name, tenant in self.reference.tenants.items():
            assert int(order.get(f"q:{name}", 0)) == len(tenant.queue)
            assert float(order.get(f"est:{name}", 0)) == sum(job.est for job in tenant.queue)

    def teardown(self) -> None:
        """What is left is served in the same order."""
        while (expected := self.reference.claim()) is not None:
            assert self.ready.claim() == expected.id
        assert self.ready.claim() is None


def test_scripts_and_reference_agree(redis_url: str):
    Orders.ready = ReadySet(redis_url, HEAD_START)
    try:
        run_state_machine_as_test(
            Orders,
            settings=settings(
                max_examples=40,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        Orders.ready.close()
