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
    @rule(pick=PICK, seconds=SECONDS)
    def retry(self, pick: int, seconds: float) -> None:
        job_id = self.some_running(pick)
        assert self.ready.finish(job_id, "retry", seconds) == "queued"
        self.reference.put_back(job_id, seconds)

    @precondition(lambda self: self.reference.running)
    @rule(pick=PICK, seconds=SECONDS)
    def retry_later(self, pick: int, seconds: float) -> None:
        job_id = self.some_running(pick)
        assert self.ready.finish(job_id, "retry", seconds, delay=1000.0) == "scheduled"
        self.reference.put_back(job_id, seconds, later=True)

    @precondition(lambda self: self.reference.later)
    @rule()
    def pauses_are_over(self) -> None:
        # In the order of their times, and those are equal now: by id.
        self.reference.later = dict(sorted(self.reference.later.items()))
        assert self.ready.due() == dict.fromkeys(self.reference.later, "queued")
        self.reference.due()

    @precondition(lambda self: self.reference.later)
    @rule(pick=PICK)
    def cancel_later(self, pick: int) -> None:
        job_id = sorted(self.reference.later)[pick % len(self.reference.later)]
        assert self.ready.cancel(job_id) == "scheduled"
        self.reference.cancel(job_id)

    @rule(tenant=TENANTS, on=st.booleans())
    def pause_tenant(self, tenant: str, on: bool) -> None:
        self.ready.control(**{f"pause__tenant__{tenant}": "why" if on else None})
        (self.reference.paused_tenants.add if on else self.reference.paused_tenants.discard)(tenant)
        self.reference.placed()

    @rule(lane=LANES, on=st.booleans())
    def pause_lane(self, lane: str, on: bool) -> None:
        self.ready.control(**{f"pause__lane__{lane}": "why" if on else None})
        (self.reference.paused_lanes.add if on else self.reference.paused_lanes.discard)(lane)

    @rule(on=st.booleans())
    def pause_model(self, on: bool) -> None:
        self.ready.control(pause__model__demo="why" if on else None)
        self.reference.paused = on

    @rule(
        what=st.sampled_from(["model", "high", "medium", "low", "tenants"]),
        most=st.none() | st.integers(1, 3),
    )
    def limit_running(self, what: str, most: int | None) -> None:
        field = {"model": "running__model__demo", "tenants": "running__tenants"}.get(
            what, f"running__lane__demo {what}"
        )
        self.ready.control(**{field: most})
        if most is None:
            self.reference.most.pop(what, None)
        else:
            self.reference.most[what] = most
        self.reference.placed()

    @precondition(lambda self: self.reference.waiting())
    @rule(pick=PICK, lane=LANES)
    def reorder(self, pick: int, lane: str) -> None:
        job = sorted(self.reference.waiting(), key=lambda job: job.id)[pick % len(self.reference.waiting())]
        assert self.ready.reorder(job.id, lane) == "queued"
        self.reference.reorder(job, lane)

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

    @precondition(lambda self: self.reference.stopping)
    @rule(pick=PICK, seconds=SECONDS)
    def stop_cancelled(self, pick: int, seconds: float) -> None:
        job_id = sorted(self.reference.stopping)[pick % len(self.reference.stopping)]
        assert self.ready.finish(job_id, "retry", seconds) == "stale"
        self.reference.stopped(job_id, seconds)

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
            assert float(order.get(f"S:{name}", 0)) == tenant.virtual
            assert float(order.get(f"vt:{name}", 0)) == tenant.reached
            assert {lane: float(order.get(f"F:{name}:{lane}", 0)) for lane in tenant.lanes} == tenant.lanes

    @invariant()
    def sets_agree(self) -> None:
        busy = {name: t for name, t in self.reference.tenants.items() if t.served}
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
            runs = sum(job.lane == lane for job in self.reference.running.values())
            assert int(order.get(f"rl:{lane}", 0)) == runs
        assert int(order.get("run", 0)) == len(self.reference.running)
        for name, tenant in self.reference.tenants.items():
            assert int(order.get(f"q:{name}", 0)) == len(tenant.queue)
            assert int(order.get(f"qb:{name}", 0)) == sum(job.size for job in tenant.queue)
            assert float(order.get(f"est:{name}", 0)) == sum(job.est for job in tenant.queue)
            assert int(order.get(f"rt:{name}", 0)) == sum(
                job.tenant == name for job in self.reference.running.values()
            )

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
                max_examples=60,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        Orders.ready.close()
