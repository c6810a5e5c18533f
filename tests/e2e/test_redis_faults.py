"""Redis is away, comes back, or loses its memory."""

from concurrent.futures import ThreadPoolExecutor
from signal import SIGKILL

import pytest

from tests.e2e.stack import LEASE, Stack, chat
from tests.e2e.waiting import until

CHAT = "/v1/chat/completions"


def back(stack: Stack) -> None:
    """Start Redis again on the memory it wrote down."""
    stack.start("redis")
    until(lambda: stack.get("/readyz").status_code == 200, "Redis answers")


def test_away_and_back(stack: Stack) -> None:
    stack.signal("redis", SIGKILL)
    try:
        refused = stack.post(CHAT, chat("hello", "fast"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_unavailable")
        assert int(refused.headers["Retry-After"]) >= 1
        assert stack.get("/readyz").status_code == 503
        accepted = [stack.submit("fast") for _ in range(5)]
        assert {stack.job(job_id)["state"] for job_id in accepted} == {"queued"}
        dropped = stack.submit("fast")
        assert stack.post(f"/v1/jobs/{dropped}/cancel").json()["state"] == "cancelled"
    finally:
        back(stack)
    for job_id in accepted:
        assert stack.ended(job_id)["state"] == "succeeded"
    assert stack.job(dropped)["state"] == "cancelled"
    assert stack.post(CHAT, chat("hello", "fast")).status_code == 200


def test_a_short_absence_disturbs_nobody(stack: Stack) -> None:
    job_id = stack.submit("gate", "!delay=2")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(stack.post, CHAT, chat("!delay=2", "fast"))
        until(lambda: stack.engine_health("gate")["running"] == 1, "the engine runs the job")
        until(lambda: stack.engine_health("fast")["running"] == 1, "the engine runs the call")
        stack.signal("redis", SIGKILL)
        back(stack)
        assert call.result().status_code == 200
    job = stack.ended(job_id)
    assert job["state"] == "succeeded"
    assert len(stack.rows(job_id)) == 1


def test_an_absence_longer_than_the_lease(stack: Stack) -> None:
    """Nobody asked for the job to be cancelled: it is run again."""
    job_id = stack.submit("gate", f"!delay={LEASE + 1}")
    until(lambda: stack.engine_health("gate")["running"] == 1, "the engine runs the job")
    stack.signal("redis", SIGKILL)
    try:
        until(
            lambda: stack.engine_health("gate")["running"] == 0,
            "the replica stops what it cannot keep",
            within=LEASE + 2,
        )
    finally:
        back(stack)
    job = stack.ended(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)


@pytest.mark.parametrize("running", [True, False])
def test_memory_lost_under_durable_jobs(stack: Stack, running: bool) -> None:
    """SQL knows what was accepted: all of it ends well, and nothing is kept twice."""
    text = "!delay=0.3" if running else "!delay=0.01"
    jobs = [stack.submit("gate", text) for _ in range(10)]
    stack.reaches(jobs[0], "succeeded")
    with stack.redis() as client:
        client.flushall()
    for job_id in jobs:
        # Sooner than the reconciler's own turn would come.
        assert stack.ended(job_id, within=25)["state"] == "succeeded"
        assert len(stack.rows(job_id)) == 1
    until(lambda: stack.ready("gate"), "the replica is shown again")


def test_memory_lost_under_a_waiting_call(stack: Stack) -> None:
    held = stack.submit("gate", "!hang")
    stack.reaches(held, "running")
    with ThreadPoolExecutor(1) as pool, stack.redis() as client:
        call = pool.submit(stack.post, CHAT, chat("hello", "gate"))
        until(lambda: client.hget("inferq:order:gate", "jobs") == b"1", "the call waits")
        client.flushall()
        answer = call.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "redis_lost")
    job = stack.ended(answer.headers["X-Job-Id"])
    assert (job["state"], job["error"]["code"]) == ("failed", "redis_lost")
    stack.reaches(held, "running")
    assert stack.post(f"/v1/jobs/{held}/cancel").json()["state"] == "cancelled"
