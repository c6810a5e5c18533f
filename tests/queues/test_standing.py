"""What a waiting job is told about its place, against the order in which jobs are then really served."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.queues.ready_set import ReadySet

HEAD_START = {"high": 8.0, "medium": 2.0, "low": 0.0}
MODEST = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
JOBS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from(sorted(HEAD_START)),
        st.integers(1, 16).map(lambda eighths: eighths / 8),
    ),
    min_size=1,
    max_size=40,
)


def served(ready: ReadySet) -> list[str]:
    """Ids in the order of service, each run for exactly its estimate."""
    order = []
    while (job_id := ready.claim()) is not None:
        order.append(job_id)
    return order


@MODEST
@given(jobs=JOBS)
def test_a_tenant_alone_is_told_its_exact_place(redis_url: str, jobs: list):
    ready = ReadySet(redis_url, HEAD_START)
    try:
        est = {ready.accept("a", lane, seconds): seconds for _, lane, seconds in jobs}
        told = {job_id: ready.standing(job_id) for job_id in est}
        order = served(ready)
        assert [told[job_id][0] for job_id in order] == list(range(len(order)))
        mean = sum(est.values()) / len(est)
        for place, job_id in enumerate(order):
            assert abs(told[job_id][1] - place * mean) < 1e-9
    finally:
        ready.close()


@MODEST
@given(jobs=JOBS, already=st.integers(0, 10))
def test_own_rank_is_exact_and_the_estimate_of_others_is_near(redis_url: str, jobs: list, already: int):
    ready = ReadySet(redis_url, HEAD_START)
    try:
        owner = {ready.accept(tenant, lane, seconds): (tenant, seconds) for tenant, lane, seconds in jobs}
        for _ in range(already):
            ready.claim()
        told = {job_id: ready.standing(job_id) for job_id in owner}
        order = served(ready)
        tenants = {tenant for tenant, _ in owner.values()}
        longest = max(seconds for _, seconds in owner.values())
        for place, job_id in enumerate(order):
            own = [other for other in order if owner[other][0] == owner[job_id][0]].index(job_id)
            ahead = sum(owner[other][1] for other in order[:place])
            assert own <= told[job_id][0] < len(order)
            spread = max(HEAD_START.values()) + len(jobs) / 2 * longest
            assert abs(told[job_id][1] - ahead) <= len(tenants) * spread
        for job_id in set(owner) - set(order):
            assert told[job_id] == (-1, 0.0)
    finally:
        ready.close()


@MODEST
@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=5))
def test_equal_jobs_of_several_tenants_are_told_their_place_within_one_round(redis_url: str, counts: list):
    ready = ReadySet(redis_url, HEAD_START)
    try:
        ids = [ready.accept(f"t{i}", "medium", 1.0) for i, count in enumerate(counts) for _ in range(count)]
        told = {job_id: ready.standing(job_id) for job_id in ids}
        for place, job_id in enumerate(served(ready)):
            assert abs(told[job_id][0] - place) <= len(counts)
            assert abs(told[job_id][1] - place) <= len(counts)
    finally:
        ready.close()


def test_jobs_of_another_tenant_stand_in_their_own_lanes(redis_url: str):
    """A tenant whose first job is a high one does not stand in front with all that it has."""
    ready = ReadySet(redis_url, {"high": 300.0, "medium": 60.0, "low": 0.0})
    try:
        others = [ready.accept("a", "medium", 10.0) for _ in range(10)]
        mine = ready.accept("b", "medium", 10.0)
        others += [ready.accept("a", "high", 10.0) for _ in range(12)]
        told = ready.standing(mine)[0]
        place = served(ready).index(mine)
        assert place < len(others)
        assert abs(told - place) <= 1
    finally:
        ready.close()
