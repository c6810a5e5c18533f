"""The scheduler, the node agent, the API and the watcher are killed; the others go on, and the next one takes over."""

import json
from signal import SIGKILL

from tests.e2e.stack import Stack, attempt, chat
from tests.e2e.waiting import until


def test_the_scheduler_is_killed(stack: Stack) -> None:
    """Jobs are run without it; what has ended meanwhile is recorded by the next one."""
    held = stack.submit("gate", "!delay=2")
    stack.reaches(held, "running")
    stack.signal("scheduler", SIGKILL)
    try:
        jobs = [stack.submit("fast") for _ in range(8)]
        before = stack.replicas()["fast"]["jobs_done"]
        until(lambda: stack.replicas()["fast"]["jobs_done"] >= before, "jobs run")
        assert stack.post("/v1/chat/completions", chat("hello", "fast")).status_code == 200
        assert stack.job(jobs[0])["state"] != "succeeded"
    finally:
        stack.start("scheduler")
    for job_id in [held, *jobs]:
        job = stack.ended(job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", 1)
        assert len(stack.rows(job_id)) == 1


def test_the_node_agent_is_killed(stack: Stack) -> None:
    """Its replicas go on; the next agent adopts them, and starts again what then dies."""
    pids = {model: stack.replica(model).pid for model in ("fast", "gate", "words")}
    stack.signal("node", SIGKILL)
    try:
        assert stack.ended(stack.submit("fast"))["state"] == "succeeded"
    finally:
        stack.start("node")
    until(lambda: stack.log("node").count("adopted ") >= len(pids), "the agent adopts them")
    assert {model: stack.replica(model).pid for model in pids} == pids
    replica = stack.replica("gate")
    replica.kill()
    until(lambda: attempt(lambda: stack.replica("gate").pid != replica.pid), "it is started again")
    assert stack.ended(stack.submit("gate"))["state"] == "succeeded"


def test_the_agent_is_killed_before_a_replica_was_shown(stack: Stack) -> None:
    """A replica that is just starting has no record yet; the next agent must not start a second one."""
    replica = stack.replica("gate")
    replica.kill()
    fresh = until(
        lambda: attempt(lambda: (r := stack.replica("gate")).pid != replica.pid and r), "it is started again"
    )
    stack.signal("node", SIGKILL)
    stack.start("node")
    stack.until_ready("gate")
    until(lambda: f"pid {fresh.pid}" in stack.log("node").split("adopted")[-1], "the agent adopts it")
    assert stack.replica("gate").pid == fresh.pid


def test_the_api_is_killed(stack: Stack) -> None:
    job_id = stack.submit("gate", "!delay=1")
    stack.signal("api", SIGKILL)
    stack.start("api")
    until(stack.answers, "the API answers")
    assert stack.ended(job_id)["state"] == "succeeded"


def test_the_watcher_is_killed(stack: Stack) -> None:
    folders = stack.home / "llm_generated"
    stack.signal("watcher", SIGKILL)
    partial = folders / "raw" / "late.tmp"
    partial.write_text(json.dumps(chat("!tokens=2", "fast")))
    partial.rename(folders / "raw" / "late.json")
    stack.start("watcher")
    until((folders / "processed" / "late.json").exists, "the result file is there")
