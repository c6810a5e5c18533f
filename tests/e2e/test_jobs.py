"""Long jobs: accepted with an id, looked at, listed, cancelled, retried, changed, followed, left alone."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import WARM
from tests.e2e.stack import Stack, chat
from tests.e2e.waiting import until


def events_of(stack: Stack, job_id: str, after: str | None = None, limit: int | None = None) -> list[Any]:
    """(id, name, data) of a job's events until `done`, or the first `limit` of them."""
    found: list[Any] = []
    headers = {"Last-Event-ID": after} if after else {}
    with stack.http(**headers) as http, http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        assert response.status_code == 200
        event: dict[str, str] = {}
        for line in response.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = event[name] + "\n" + value if name in event else value
                continue
            if "event" in event:
                found.append((event["id"], event["event"], event["data"]))
            if limit is not None and len(found) == limit:
                break
            event = {}
    return found


def test_a_job_of_a_model_that_cannot_be_loaded_fails(stack: Stack, mood: Path) -> None:
    """After three starts, with the engine's last words. At the end of this file its cause is gone."""
    job = stack.ended(stack.first_moody, within=180)
    assert (job["state"], job["error"]["code"]) == ("failed", "engine_load_failed")
    assert "not in the mood" in job["error"]["message"]
    mood.touch()
    assert stack.post(f"/v1/jobs/{stack.first_moody}/retry").status_code == 202


def test_accepted_polled_and_fetched(stack: Stack) -> None:
    body = {"model": "quick", "body": {"messages": [{"role": "user", "content": "hello"}]}, "priority": "low"}
    accepted = stack.post("/v1/jobs", body | {"metadata": {"from": "test"}})
    job_id = accepted.json()["id"]
    assert accepted.status_code == 202
    assert accepted.headers["Location"] == f"/v1/jobs/{job_id}"
    assert int(accepted.headers["Retry-After"]) >= 1
    job = stack.ended(job_id)
    assert (job["state"], job["model"], job["lane"]) == ("succeeded", "fast", "low")
    assert (job["attempt"], job["metadata"], job["durable"]) == (1, {"from": "test"}, True)
    assert job["result"]["choices"][0]["message"]["content"] == "w0 w1 w2 w3"
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    raw = stack.get(job["links"]["result"])
    assert raw.json() == job["result"]


def test_respond_async_makes_a_call_a_job(stack: Stack) -> None:
    answer = stack.post("/v1/chat/completions", chat("hello", "fast"), Prefer="respond-async")
    assert answer.status_code == 202
    assert stack.ended(answer.json()["id"])["state"] == "succeeded"


def test_a_waiting_job_is_cancelled(stack: Stack) -> None:
    held = stack.submit("gate", "!hang")
    stack.reaches(held, "running")
    waiting = stack.submit("gate")
    assert stack.job(waiting)["position"] == 1
    assert stack.post(f"/v1/jobs/{waiting}/cancel").json()["state"] == "cancelled"
    assert stack.post(f"/v1/jobs/{held}/cancel").json()["state"] == "cancelled"
    behind = stack.ended(stack.submit("gate"))
    assert behind["state"] == "succeeded"
    assert (stack.job(waiting)["state"], stack.job(waiting)["attempt"]) == ("cancelled", 0)


def test_a_running_job_is_cancelled_down_to_the_engine(stack: Stack) -> None:
    held = stack.submit("gate", "!hang")
    until(lambda: stack.engine_health("gate")["running"] == 1, "the engine runs the job")
    assert stack.post(f"/v1/jobs/{held}/cancel").json()["state"] == "cancelled"
    until(lambda: stack.engine_health("gate")["running"] == 0, "the engine stops computing")
    until(lambda: stack.rows(held)[0]["state"] == "cancelled", "SQL holds it")
    again = stack.post(f"/v1/jobs/{held}/cancel")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


def test_a_cancelled_job_runs_again_and_the_old_cancel_does_not_reach_it(stack: Stack) -> None:
    job_id = stack.submit("gate", "!hang")
    stack.reaches(job_id, "running")
    stack.post(f"/v1/jobs/{job_id}/cancel")
    changed = {"body": {"messages": [{"role": "user", "content": "!delay=1"}]}}
    assert stack.post(f"/v1/jobs/{job_id}/requeue", changed).status_code == 202
    job = stack.ended(job_id)
    assert (job["state"], job["generation"], job["attempt"]) == ("succeeded", 1, 1)


def test_listed_newest_first_by_filter_and_page(stack: Stack) -> None:
    mine = [stack.submit("fast", priority="high") for _ in range(3)]
    for job_id in mine:
        stack.ended(job_id)
    query = "/v1/jobs?model=fast&lane=high&state=succeeded"
    page = stack.get(f"{query}&limit=2").json()
    assert [job["id"] for job in page["data"]] == mine[:0:-1]
    rest = stack.get(f"{query}&limit=2&cursor={page['next_cursor']}").json()
    assert rest["data"][0]["id"] == mine[0]
    assert all(job.get("result") is None for job in page["data"])


def test_a_requeue_with_changes_is_a_new_generation(stack: Stack) -> None:
    job_id = stack.submit("fast")
    assert stack.ended(job_id)["generation"] == 0
    assert stack.post(f"/v1/jobs/{job_id}/retry").status_code == 409
    changed = {"model": "gate", "priority": "high", "body": {"messages": said("!tokens=2")}}
    assert stack.post(f"/v1/jobs/{job_id}/requeue", changed).status_code == 202
    job = stack.ended(job_id)
    assert (job["generation"], job["model"], job["lane"]) == (1, "gate", "high")
    assert job["result"]["choices"][0]["message"]["content"] == "w0 w1"
    assert len(stack.rows(job_id)) == 1


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_running_job_cannot_be_queued_again(stack: Stack) -> None:
    held = stack.submit("gate", "!hang")
    stack.reaches(held, "running")
    refused = stack.post(f"/v1/jobs/{held}/retry")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert stack.get(f"/v1/jobs/{held}/result").status_code == 409
    stack.post(f"/v1/jobs/{held}/cancel")


def test_events_go_on_where_the_reader_stopped(stack: Stack) -> None:
    job_id = stack.submit("words", body={"stream": True})
    first = events_of(stack, job_id, limit=4)
    rest = events_of(stack, job_id, after=first[-1][0])
    whole = events_of(stack, job_id)
    assert whole == first + rest
    names = [name for _, name, _ in whole]
    assert (names[0], names[-1], names.count("done")) == ("state", "done", 1)
    assert json.loads(whole[-1][2]) == {"state": "succeeded"}
    text = ""
    for line in "\n".join(data for _, name, data in whole if name == "chunk").split("\n"):
        if line != "[DONE]":
            text += "".join(c["delta"].get("content") or "" for c in json.loads(line)["choices"])
    assert text == " ".join(f"w{number}" for number in range(40))
    assert stack.job(job_id)["result"]["choices"][0]["message"]["content"] == text


def test_a_kept_call_goes_on_without_its_caller(stack: Stack) -> None:
    body = chat("hello", "words", stream=True)
    with (
        stack.http(**{"X-On-Disconnect": "keep"}) as http,
        http.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        job_id = answer.headers["X-Job-Id"]
        assert next(answer.iter_bytes()).startswith(b"data: ")
    job = stack.ended(job_id)
    assert (job["state"], job["durable"], job["kept"]) == ("succeeded", False, True)
    message = job["result"]["choices"][0]["message"]
    assert message == {"role": "assistant", "content": " ".join(f"w{number}" for number in range(40))}
    until(lambda: stack.rows(job_id), "SQL holds it")


def test_a_dropped_file_becomes_a_result_file(stack: Stack) -> None:
    folders = stack.home / "llm_generated"
    until((folders / "raw").exists, "the watcher has made its folders")
    partial = folders / "raw" / "question.json.tmp"
    partial.write_text(json.dumps(chat("!tokens=3", "fast")))
    partial.rename(folders / "raw" / "question.json")
    result = folders / "processed" / "question.json"
    until(result.exists, "the result file is there")
    assert "w0 w1 w2" in result.read_text()
    until((folders / "archive" / "question.json").exists, "the job file is archived")
    wrong = folders / "raw" / "wrong.json"
    wrong.with_suffix(".tmp").write_text('{"model": "nobody", "prompt": "x"}')
    wrong.with_suffix(".tmp").rename(wrong)
    error = folders / "errors" / "wrong.error.json"
    until(error.exists, "the error file is there")
    assert "nobody" in error.read_text()


@pytest.mark.parametrize("model", WARM)
def test_a_warm_model_is_shown_as_ready(stack: Stack, model: str) -> None:
    stack.until_ready(model)
    info = {each["id"]: each["info"] for each in stack.get("/v1/models").json()["data"]}
    assert info[model]["state"] == "ready"
    replica = stack.replicas()[model]
    assert replica["memory_bytes"] > 1_000_000
    assert 0 < replica["load_seconds"] < time.monotonic()


def test_a_failed_job_succeeds_once_its_cause_is_gone(stack: Stack) -> None:
    job = stack.ended(stack.first_moody, within=180)
    assert (job["state"], job["generation"]) == ("succeeded", 1)
