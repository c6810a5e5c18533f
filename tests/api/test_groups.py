"""Groups over HTTP: accepted all or none, counted, listed, cancelled."""

import time
from typing import Any

import pytest

from inferq.config import Settings
from inferq.job import new_job_id
from tests.api.releasing import released
from tests.api.stack import ANSWER, CHAT, Replica, Stack, recorded

BODY = {"messages": CHAT["messages"]}
JOB = {"model": "demo-chat", "body": BODY}
NEXT = {
    "model": "demo-chat",
    "body": {"messages": [{"role": "user", "content": "{{jobs.0.choices.0.message.content}}"}]},
    "depends_on": ["#0"],
}


async def grouped(stack: Stack, *jobs: dict[str, Any], who: str = "user", **more: Any) -> dict[str, Any]:
    response = await stack.post("/v1/groups", {"jobs": list(jobs), **more}, who)
    assert response.status_code == 202, response.text
    made: dict[str, Any] = response.json()
    assert response.headers["location"] == made["links"]["self"]
    return made


def counted(group: dict[str, Any]) -> dict[str, int]:
    return {state: count for state, count in group["counts"].items() if count}


async def test_a_group_goes_from_its_acceptance_to_its_end(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    made = await grouped(stack, JOB, NEXT, {**CHAT, "priority": "high"}, metadata={"a": "b"})
    assert (made["object"], made["total"], made["metadata"]) == ("group", 3, {"a": "b"})
    assert (counted(made), made["progress"], made["finished_at"]) == ({"scheduled": 3}, 0, None)
    here = made["links"]["self"]
    await released(settings, stack.context)
    assert counted((await stack.get(here)).json()) == {"queued": 2, "scheduled": 1}
    attempts = [await replica.claim(), await replica.claim()]
    assert counted((await stack.get(here)).json()) == {"running": 2, "scheduled": 1}
    for attempt in attempts:
        await replica.result(attempt, ANSWER)
    await recorded(settings, stack.context)
    await released(settings, stack.context)
    half = (await stack.get(here)).json()
    assert (counted(half), round(half["progress"], 2)) == ({"succeeded": 2, "queued": 1}, 0.67)
    await replica.answer_one()
    await recorded(settings, stack.context)
    done = (await stack.get(here)).json()
    assert (counted(done), done["progress"]) == ({"succeeded": 3}, 1)
    assert done["finished_at"] >= done["created_at"]


async def test_the_jobs_of_a_group_are_jobs(stack: Stack) -> None:
    made = await grouped(stack, JOB, {**JOB, "metadata": {"n": "1"}})
    await stack.submit()
    page = (await stack.get(made["links"]["jobs"])).json()
    assert [job["metadata"] for job in page["data"]] == [{"n": "1"}, {}]
    assert {job["group"] for job in page["data"]} == {made["id"]}
    first = (await stack.get(f"{made['links']['jobs']}?limit=1&state=scheduled")).json()
    assert (len(first["data"]), first["has_more"]) == (1, True)
    rest = (await stack.get(f"{made['links']['jobs']}?cursor={first['next_cursor']}")).json()
    assert [job["id"] for job in rest["data"]] == [page["data"][1]["id"]]


@pytest.mark.parametrize(
    ("jobs", "status", "param"),
    [
        ([JOB, {**JOB, "body": {}}], 400, "jobs[1].messages"),
        ([JOB, {**JOB, "model": "none"}], 404, "jobs[1].model"),
        ([JOB, {**JOB, "depends_on": [new_job_id()]}], 404, "depends_on"),
        ([NEXT, JOB], 400, "jobs[0].depends_on[0]"),
        ([JOB, {**JOB, "depends_on": ["#1"]}], 400, "jobs[1].depends_on[0]"),
        ([JOB, {**JOB, "depends_on": ["#0", "#0"]}], 400, "jobs[1].depends_on"),
        ([JOB, {**JOB, "run_at": "now"}], 400, "jobs[1].run_at"),
        ([JOB, {**JOB, "colour": 1}], 400, "jobs[1].colour"),
        ([JOB, 5], 400, "jobs[1]"),
        ([], 400, "jobs"),
        ([JOB] * 1001, 400, "jobs"),
        ("all", 400, "jobs"),
    ],
)
async def test_one_bad_job_refuses_the_group(stack: Stack, jobs: Any, status: int, param: str) -> None:
    refused = await stack.post("/v1/groups", {"jobs": jobs})
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text
    assert (await stack.get("/v1/groups")).json()["data"] == []
    assert (await stack.get("/v1/jobs")).json()["data"] == []


async def test_unknown_fields_are_refused(stack: Stack) -> None:
    for more in ({"colour": 1}, {"webhook": "http://x.example/"}, {"metadata": {"a": 1}}):
        refused = await stack.post("/v1/groups", {"jobs": [JOB], **more})
        assert refused.status_code == 400


async def test_a_thousand_jobs_are_one_group(stack: Stack) -> None:
    made = await grouped(stack, *[JOB] * 1000)
    assert (made["total"], counted(made)) == (1000, {"scheduled": 1000})


async def test_a_cancel_ends_all_down_to_the_queue(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    made = await grouped(stack, JOB, JOB, NEXT, {**JOB, "run_at": time.time() + 3600})
    await released(settings, stack.context)
    await replica.answer_one()
    await recorded(settings, stack.context)
    done = (await stack.post(made["links"]["cancel"])).json()
    assert counted(done) == {"succeeded": 1, "cancelled": 3}
    assert done["finished_at"] is not None
    assert await replica.attempts.claim() is None


async def test_groups_are_listed_by_page(stack: Stack) -> None:
    ids = [(await grouped(stack, JOB))["id"] for _ in range(3)]
    await grouped(stack, JOB, who="other")
    first = (await stack.get("/v1/groups?limit=2")).json()
    assert ([group["id"] for group in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    rest = (await stack.get(f"/v1/groups?cursor={first['next_cursor']}")).json()
    assert ([group["id"] for group in rest["data"]], rest["next_cursor"]) == (ids[:1], None)
    assert len((await stack.get("/v1/groups", "admin")).json()["data"]) == 4
    assert (await stack.get("/v1/groups?state=queued")).status_code == 400


async def test_others_groups_are_not_there(stack: Stack) -> None:
    here = (await grouped(stack, JOB, who="other"))["links"]["self"]
    for path in (here, f"{here}/jobs", f"/v1/groups/{new_job_id()}", "/v1/groups/x"):
        assert (await stack.get(path)).status_code == 404
    assert (await stack.post(f"{here}/cancel")).status_code == 404
    assert (await stack.get(here, "readonly")).status_code == 200
    assert (await stack.post(f"{here}/cancel", who="readonly")).status_code == 403
    assert (await stack.post("/v1/groups", {"jobs": [JOB]}, "readonly")).status_code == 403
