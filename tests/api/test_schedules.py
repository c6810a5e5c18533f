"""Schedules over HTTP: made, shown, changed, paused, and what becomes of their runs."""

import time
from typing import Any

import pytest

from inferq.config import Settings
from inferq.lanes import Lane
from storage.keys import Role
from tests.api.releasing import recurred, released
from tests.api.stack import CHAT, Replica, Stack

JOB = {"model": "demo-chat", "body": {"messages": CHAT["messages"]}, "priority": "low"}
REPORT = {"name": "report", "cron": "30 6 * * MON-FRI", "timezone": "Europe/Berlin", "job": JOB}


async def made(stack: Stack, who: str = "user", **changes: Any) -> dict[str, Any]:
    response = await stack.post("/v1/schedules", {**REPORT, **changes}, who)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def patched(stack: Stack, which: str, changes: Any, who: str = "user") -> Any:
    return await stack.http.patch(f"/v1/schedules/{which}", json=changes, headers=stack.headers(who))


async def come(stack: Stack, schedule: dict[str, Any], *, ago: float = 1.0) -> None:
    """Its time has come, some seconds ago."""
    await stack.context.storage.schedules.change(schedule["id"], {"next_at": time.time() - ago})


async def show(stack: Stack, which: str, who: str = "user") -> dict[str, Any]:
    found: dict[str, Any] = (await stack.get(f"/v1/schedules/{which}", who)).json()
    return found


async def runs(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await stack.get("/v1/jobs?source=schedule:report")).json()["data"]
    return found


async def test_a_schedule_is_made_with_its_next_times(stack: Stack) -> None:
    schedule = await made(stack)
    assert schedule == {
        **schedule,
        **REPORT,
        "object": "schedule",
        "tenant": "user",
        "enabled": True,
        "last_at": None,
        "last_job": None,
        "last_error": None,
    }
    first, second, third = schedule["next_times"]
    assert time.time() < schedule["next_at"] == first < second < third
    assert await show(stack, "report") == await show(stack, schedule["id"]) == schedule
    assert (await stack.get("/v1/schedules")).json()["data"] == [schedule]


async def test_a_run_is_a_job_of_its_tenant(stack: Stack, replica: Replica, settings: Settings) -> None:
    schedule = await made(stack, job={**JOB, "expires_in": "1h"})
    await recurred(settings, stack.context)
    assert await runs(stack) == []
    await come(stack, schedule)
    await recurred(settings, stack.context)
    await released(settings, stack.context)
    [job] = await runs(stack)
    assert (job["state"], job["tenant"], job["lane"], job["durable"]) == ("queued", "user", "low", True)
    assert 3500 < job["expires_at"] - time.time() <= 3600
    after = await show(stack, "report")
    assert (after["last_job"], after["last_error"], after["next_at"]) == (
        job["id"],
        None,
        schedule["next_at"],
    )
    assert (await replica.claim()).id == job["id"]


async def test_a_run_keeps_to_the_lane_of_the_key(stack: Stack, settings: Settings) -> None:
    _, stack.keys["low"] = await stack.context.storage.keys.create("low", Role.USER, lane=Lane.LOW)
    schedule = await made(stack, "low", job={**JOB, "priority": "high"})
    assert schedule["job"]["priority"] == "low"
    changed = (await patched(stack, "report", {"job": {**JOB, "priority": 9}}, "low")).json()
    await come(stack, changed)
    await recurred(settings, stack.context)
    jobs = (await stack.get("/v1/jobs?source=schedule:report", "low")).json()["data"]
    assert [job["lane"] for job in jobs] == ["low"]


@pytest.mark.parametrize("job", [{"body": JOB["body"]}, {"messages": CHAT["messages"], "model": "gpt-4o"}])
async def test_a_schedule_keeps_what_its_path_and_headers_said(
    stack: Stack, settings: Settings, job: dict[str, Any]
) -> None:
    hook = "https://example.com/told"
    response = await stack.post("/openai/demo-chat/v1/schedules", {**REPORT, "job": job}, x_webhook=hook)
    assert response.status_code == 200, response.text
    await come(stack, response.json())
    await recurred(settings, stack.context)
    [run] = await runs(stack)
    found = await stack.context.storage.ledger.get(run["id"])
    assert found is not None
    assert (found.spec.model, found.spec.webhook) == ("demo-chat", hook)
    refused = await stack.post("/openai/demo-chat:512/v1/schedules", {**REPORT, "name": "b", "job": job})
    assert (refused.status_code, "context" in refused.json()["error"]["message"]) == (400, True)


async def test_missed_runs_come_once_together(stack: Stack, settings: Settings) -> None:
    schedule = await made(stack, cron="* * * * *")
    await come(stack, schedule, ago=86_400)
    for _ in range(3):
        await recurred(settings, stack.context)
    assert len(await runs(stack)) == 1
    assert (await show(stack, "report"))["next_at"] > time.time()


async def test_a_clock_set_back_makes_no_second_run(stack: Stack, settings: Settings) -> None:
    schedule = await made(stack, cron="@hourly")
    await come(stack, schedule)
    await recurred(settings, stack.context)
    following = (await show(stack, "report"))["next_at"]
    assert following > time.time()
    await recurred(settings, stack.context)
    assert len(await runs(stack)) == 1


async def test_a_pause_lets_nothing_come_and_a_resume_makes_nothing_up(
    stack: Stack, settings: Settings
) -> None:
    schedule = await made(stack)
    await come(stack, schedule)
    paused = (await patched(stack, "report", {"enabled": False})).json()
    assert (paused["enabled"], paused["next_at"], paused["next_times"]) == (False, None, [])
    await recurred(settings, stack.context)
    resumed = (await patched(stack, "report", {"enabled": True})).json()
    assert resumed["next_at"] > time.time()
    await recurred(settings, stack.context)
    assert await runs(stack) == []
    assert (await made(stack, name="asleep", enabled=False))["next_at"] is None


async def test_a_change_moves_the_next_time(stack: Stack) -> None:
    await made(stack)
    hourly = (await patched(stack, "report", {"cron": "@hourly", "timezone": "UTC"})).json()
    assert hourly["next_at"] % 3600 == 0
    assert hourly["next_at"] - time.time() <= 3600
    job = {**JOB, "priority": "high"}
    assert (await patched(stack, "report", {"job": job})).json()["job"] == job
    assert (await patched(stack, "report", {})).json()["cron"] == "@hourly"


async def test_a_run_that_cannot_be_made_is_left_out_and_said(
    stack: Stack, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = await made(stack)
    models = stack.context.catalog.models
    monkeypatch.setattr(
        stack.context.catalog, "_names", {name: name for name in models if name != "demo-chat"}
    )
    await come(stack, schedule)
    await recurred(settings, stack.context)
    after = await show(stack, "report")
    assert "demo-chat" in after["last_error"]
    assert (after["next_at"], after["last_job"]) == (schedule["next_at"], None)
    assert await runs(stack) == []


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"cron": "61 * * * *"}, 400, "cron"),
        ({"cron": 5}, 400, "cron"),
        ({"cron": None}, 400, "cron"),
        ({"timezone": "Mars/Olympus"}, 400, "timezone"),
        ({"name": "a b"}, 400, "name"),
        ({"name": ""}, 400, "name"),
        ({"job": {**JOB, "run_at": 5}}, 400, "job.run_at"),
        ({"job": {**JOB, "depends_on": []}}, 400, "job.depends_on"),
        ({"job": {**JOB, "body": {}}}, 400, "job.messages"),
        ({"job": {**JOB, "model": "none"}}, 404, "job.model"),
        ({"job": []}, 400, "job"),
        ({"enabled": "yes"}, 400, "enabled"),
        ({"colour": 1}, 400, "colour"),
    ],
)
async def test_what_cannot_come_again_is_refused(
    stack: Stack, changes: dict[str, Any], status: int, param: str
) -> None:
    refused = await stack.post("/v1/schedules", {**REPORT, **changes})
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text
    await made(stack)
    if "name" not in changes and changes != {"cron": None}:
        assert (await patched(stack, "report", changes)).status_code == status


async def test_a_name_is_a_tenants_own(stack: Stack) -> None:
    await made(stack)
    assert (await stack.post("/v1/schedules", REPORT)).status_code == 409
    theirs = await made(stack, "other")
    for which in (theirs["id"], "none"):
        assert (await stack.get(f"/v1/schedules/{which}")).status_code == 404
        assert (await patched(stack, which, {"enabled": False})).status_code == 404
        assert (await stack.http.delete(f"/v1/schedules/{which}", headers=stack.headers())).status_code == 404
    assert len((await stack.get("/v1/schedules")).json()["data"]) == 1
    assert len((await stack.get("/v1/schedules", "readonly")).json()["data"]) == 2
    assert (await patched(stack, theirs["id"], {"enabled": False}, "readonly")).status_code == 403
    assert (await patched(stack, theirs["id"], {"enabled": False}, "admin")).status_code == 200


async def test_a_deleted_schedule_leaves_its_jobs(stack: Stack, settings: Settings) -> None:
    schedule = await made(stack)
    await come(stack, schedule)
    await recurred(settings, stack.context)
    assert (await stack.http.delete("/v1/schedules/report", headers=stack.headers())).json()[
        "name"
    ] == "report"
    assert (await stack.get("/v1/schedules/report")).status_code == 404
    assert len(await runs(stack)) == 1
