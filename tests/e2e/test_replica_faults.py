"""A replica is killed, or told to stop, while it has work."""

import openai
import psutil
import pytest

from tests.e2e.contract import said
from tests.e2e.stack import Stack, attempt
from tests.e2e.waiting import until


def until_replaced(stack: Stack, model: str, before: psutil.Process) -> None:
    until(lambda: attempt(lambda: stack.replica(model).pid != before.pid), f"{model} has another replica")
    stack.until_ready(model)


def running(stack: Stack, model: str, text: str) -> str:
    """The id of a durable job that the engine is working on."""
    job_id = stack.submit(model, text)
    until(lambda: stack.engine_health(model)["running"] == 1, "the engine runs the job")
    return job_id


def test_killed_with_a_job(stack: Stack) -> None:
    """The lease ends, the job runs again in the next replica, and it is committed once."""
    replica, engine = stack.replica("gate"), stack.engine("gate")
    job_id = running(stack, "gate", "!delay=2")
    replica.kill()
    until(lambda: not engine.is_running(), "the engine goes with its replica")
    job = stack.ended(job_id)
    assert (job["state"], job["attempt"], job["generation"]) == ("succeeded", 2, 0)
    (row,) = stack.rows(job_id)
    assert (row["state"], row["attempt"]) == ("succeeded", 2)
    until_replaced(stack, "gate", replica)


def test_killed_in_the_middle_of_a_stream(stack: Stack, client: openai.OpenAI) -> None:
    replica = stack.replica("words")
    seen = []
    with (
        pytest.raises(openai.APIError) as broken,
        client.chat.completions.create(model="words", messages=said("!tokens=4000"), stream=True) as stream,
    ):
        job_id = stream.response.headers["X-Job-Id"]
        for chunk in stream:
            seen.append(chunk)
            if len(seen) == 5:
                replica.kill()
    assert broken.value.code == "stream_broken"
    assert stack.ended(job_id)["attempt"] == 1
    until_replaced(stack, "words", replica)


def test_stopped_with_a_job_that_ends_in_time(stack: Stack) -> None:
    replica = stack.replica("gate")
    job_id = running(stack, "gate", "!delay=1")
    behind = stack.submit("gate")
    replica.terminate()
    until(lambda: not replica.is_running(), "the replica ends")
    assert stack.job(behind)["attempt"] == 0
    job = stack.ended(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert job["finished_at"] - job["started_at"] < 2
    until_replaced(stack, "gate", replica)
    assert stack.ended(behind)["state"] == "succeeded"


def test_stopped_with_a_job_that_does_not(stack: Stack) -> None:
    """Handed back: the attempt does not count."""
    replica = stack.replica("gate")
    job_id = running(stack, "gate", "!delay=5")
    replica.terminate()
    stack.reaches(job_id, "queued")
    assert stack.job(job_id)["attempt"] == 0
    until_replaced(stack, "gate", replica)
    job = stack.ended(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
