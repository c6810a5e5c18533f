"""The commands for jobs that wait, groups and schedules, as processes against a real API."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from inferq import errors
from inferq.cli import exits
from inferq.config import Settings
from inferq.lanes import Lane
from queues.presence import NodeInfo, Presence, ReplicaInfo
from storage.keys import Role
from tests.api.stack import CHAT, Stack, serving, settings_for

ROOT = Path(__file__).parent.parent.parent
JOB = {"model": "demo-chat", "body": {"messages": CHAT["messages"]}}


def environment(stack: Stack, who: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ")}
    mine = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "INFERQ_URL": stack.url,
        "INFERQ_API_KEY": stack.keys[who],
    }
    return {**clean, **mine, "TERM": "dumb"}


async def inferq(stack: Stack, *arguments: str, who: str = "user") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "inferq", *arguments]
    return await asyncio.to_thread(
        subprocess.run,
        argv,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(stack, who),
        timeout=60,
        check=False,
    )


async def answered(stack: Stack, *arguments: str) -> Any:
    done = await inferq(stack, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_a_job_is_sent_for_later(stack: Stack) -> None:
    due = time.time() + 3600
    job = await answered(stack, "submit", "Hello!", "--run-at", str(due), "--expires-in", "2h", "--async")
    assert (job["state"], job["due_at"]) == ("scheduled", due)
    assert job["expires_at"] > due
    after = await answered(stack, "submit", "Hello!", "--after", job["id"], "--async")
    assert (after["state"], after["depends_on"]) == ("scheduled", [job["id"]])
    shown = await inferq(stack, "submit", "Hello!", "--run-at", "2000-01-01T00:00:00Z", "--async")
    assert "lane, position" in shown.stderr
    told = await inferq(stack, "submit", "Hello!", "--after", job["id"], "--async")
    assert "after other jobs" in told.stderr
    wrong = await inferq(stack, "submit", "Hello!", "--run-at", "2999-01-01T00:00:00", "--async")
    assert wrong.returncode != 0
    assert "time zone" in wrong.stderr
    streamed = await inferq(stack, "submit", "Hello!", "--after", job["id"], "--stream")
    assert "--stream" in streamed.stderr


async def test_groups_are_listed_shown_and_cancelled(stack: Stack) -> None:
    made = (await stack.post("/v1/groups", {"jobs": [JOB, JOB]})).json()
    assert [group["id"] for group in (await answered(stack, "groups", "list"))["data"]] == [made["id"]]
    assert (await answered(stack, "groups", "show", made["id"]))["total"] == 2
    assert made["id"] in (await inferq(stack, "groups", "list")).stdout
    cancelled = await inferq(stack, "groups", "cancel", made["id"])
    assert "100% of 2 jobs" in cancelled.stdout
    assert "2 cancelled" in cancelled.stdout
    assert (await inferq(stack, "groups", "show", "none")).returncode != 0


async def test_schedules_are_made_paused_resumed_and_deleted(stack: Stack, tmp_path: Path) -> None:
    made = await answered(
        stack, "schedules", "create", "report", "@daily", "Good morning!", "-z", "Europe/Berlin"
    )
    assert (made["name"], made["timezone"], made["job"]["model"]) == ("report", "Europe/Berlin", "demo-chat")
    file = tmp_path / "job.json"
    file.write_text(json.dumps(JOB))
    other = await inferq(stack, "schedules", "create", "file", "*/5 * * * *", str(file))
    assert other.stdout.startswith("file: in ")
    listed = await inferq(stack, "schedules", "list")
    assert "report" in listed.stdout
    assert "*/5 * * * *" in listed.stdout
    assert (await answered(stack, "schedules", "pause", "report"))["next_at"] is None
    assert "paused" in (await inferq(stack, "schedules", "list")).stdout
    assert (await answered(stack, "schedules", "resume", "report"))["next_at"] > time.time()
    assert (await inferq(stack, "schedules", "delete", "report")).returncode == 0
    assert [each["name"] for each in await answered(stack, "schedules", "list")] == ["file"]
    wrong = await inferq(stack, "schedules", "create", "bad", "61 * * * *", "x")
    assert wrong.returncode != 0
    assert "cron" in wrong.stderr


async def test_what_is_stopped_is_told_and_resumed_once(stack: Stack, settings: Settings) -> None:
    presence = Presence(stack.context.gateway.queue.redis, settings.queue.prefix)
    common: dict[str, Any] = {"model": "demo-chat", "device": "cpu:0", "pid": 1, "since": 1.0, "slots": 1}
    for node, circuit in (("here", "half_open"), ("there", "open")):
        info = ReplicaInfo(
            name=f"demo-chat@cpu:0.{node}",
            node=node,
            state="ready",
            circuit=circuit,
            circuit_left=9.0,
            **common,
        )
        await presence.show_replica(info)
        await presence.show_node(NodeInfo(name=node, pid=1, seen_at=time.time()))
    await inferq(stack, "queues", "pause", "--model", "demo-chat", "--reason", "new weights", who="admin")
    await inferq(stack, "queues", "drain", "--node", "here", who="admin")
    shown = (await inferq(stack, "status")).stdout
    assert "paused model demo-chat" in shown
    assert "): new weights" in shown
    assert "drained node here" in shown
    assert shown.count("ready drained") == 1
    assert "circuit half_open: takes one job to try its engine" in shown
    assert "circuit open: takes no job for 9.0 s more" in shown
    undrained = await inferq(stack, "queues", "undrain", "--node", "here", who="admin")
    assert (undrained.returncode, undrained.stdout) == (0, "resumed node here\n")
    again = await inferq(stack, "queues", "resume", "--node", "here", who="admin")
    assert (again.returncode, again.stdout) == (0, "")
    assert "neither paused nor drained" in again.stderr
    misspelt = await inferq(stack, "queues", "resume", "--model", "demo-caht", who="admin")
    assert misspelt.returncode == exits.CODES[errors.ModelNotFound]
    assert "Did you mean 'demo-chat'" in misspelt.stderr


async def test_a_scheduled_job_is_shown_with_all_that_it_waits_for(stack: Stack) -> None:
    first = await answered(stack, "submit", "Hello!", "--async")
    due = ("--run-at", str(time.time() + 7200), "--expires-in", "1d", "--after", first["id"])
    job = await answered(stack, "submit", "Hello!", *due, "--async")
    facts = dict(
        line.split(maxsplit=1)
        for line in (await inferq(stack, "jobs", "show", job["id"])).stdout.splitlines()
    )
    assert "(in " in facts["due"]
    assert "(in " in facts["expires"]
    assert facts["after"].strip() == first["id"]
    group = (await stack.post("/v1/groups", {"jobs": [JOB]})).json()
    (member,) = (await stack.get(f"/v1/groups/{group['id']}/jobs")).json()["data"]
    assert f"group     {group['id']}" in (await inferq(stack, "jobs", "show", member["id"])).stdout


async def test_a_job_that_is_due_much_later_is_not_awaited(stack: Stack) -> None:
    later = await inferq(stack, "submit", "Hello!", "--run-at", str(time.time() + 7200))
    assert later.returncode == 0
    assert (await stack.get(f"/v1/jobs/{later.stdout.strip()}")).json()["state"] == "scheduled"
    assert "lane, in " in later.stderr


async def test_a_wait_without_a_terminal_says_what_for(stack: Stack) -> None:
    first = await stack.submit()
    after = await answered(stack, "submit", "Hello!", "--after", first, "--async")
    for job_id, why in ((first, "position 1"), (after["id"], "after other jobs")):
        watching = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "inferq", "jobs", "watch", job_id),
            stderr=asyncio.subprocess.PIPE,
            env=environment(stack, "user"),
            cwd=ROOT,
        )
        assert watching.stderr
        try:
            async with asyncio.timeout(60):
                told = (await watching.stderr.readline()).decode()
        finally:
            watching.kill()
            await watching.wait()
        assert told.startswith(f"waiting for {job_id}: ")
        assert why in told


async def test_a_job_that_something_stopped_keeps_waiting_says_so(stack: Stack) -> None:
    await inferq(stack, "queues", "pause", "--model", "demo-chat", "--reason", "new weights", who="admin")
    await inferq(stack, "queues", "pause", "--lane", "low", who="admin")
    sent = await inferq(stack, "submit", "Hello!", "--async")
    shown = await inferq(stack, "jobs", "show", sent.stdout.strip())
    for told in (sent.stderr, shown.stderr):
        assert "paused model demo-chat" in told
        assert "new weights" in told
        assert "lane low" not in told


async def test_a_move_names_the_lane_that_the_job_got(stack: Stack) -> None:
    _, stack.keys["bound"] = await stack.context.storage.keys.create("bound", Role.USER, lane=Lane.MEDIUM)
    job_id = await stack.submit("bound", priority="low")
    moved = await inferq(stack, "jobs", "move", job_id, "--priority", "high", who="bound")
    assert (moved.returncode, moved.stdout) == (0, f"{job_id}  queued  medium lane\n")
    assert "no lane above medium" in moved.stderr
    again = await inferq(stack, "jobs", "move", job_id, "--priority", "low", who="bound")
    assert (again.stdout, again.stderr) == (f"{job_id}  queued  low lane\n", "")


async def test_a_group_is_made_from_a_file_and_its_jobs_are_listed(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps({"jobs": [JOB, {**JOB, "depends_on": ["#0"]}], "metadata": {"for": "test"}}))
    made = await answered(stack, "groups", "create", str(file))
    assert (made["total"], made["metadata"]) == (2, {"for": "test"})
    page = await answered(stack, "jobs", "list", "--group", made["id"])
    assert [len(job["depends_on"]) for job in page["data"]] == [1, 0]
    shown = (await inferq(stack, "groups", "show", made["id"])).stdout
    assert all(job["id"] in shown for job in page["data"])
    file.write_text("\n".join(json.dumps({"messages": CHAT["messages"]}) for _ in range(3)))
    plain = await inferq(stack, "groups", "create", str(file), "--model", "demo-chat")
    assert (await answered(stack, "groups", "show", plain.stdout.strip()))["total"] == 3
    assert (await inferq(stack, "groups", "create", "absent.json")).returncode == exits.USAGE


async def test_jobs_of_one_tenant_are_listed(stack: Stack) -> None:
    mine, other = await stack.submit(), await stack.submit("other")
    listed = (await inferq(stack, "jobs", "list", "--tenant", "other", who="admin")).stdout
    assert other in listed
    assert mine not in listed
    assert (await answered(stack, "jobs", "list", "--tenant", "other"))["data"][0]["id"] == mine


async def test_a_schedule_is_shown_and_edited(stack: Stack) -> None:
    await answered(stack, "schedules", "create", "report", "@daily", "Good morning!")
    edited = await answered(
        stack, "schedules", "edit", "report", "--cron", "@hourly", "--job", "Good evening!"
    )
    assert (edited["cron"], edited["timezone"]) == ("@hourly", "UTC")
    shown = (await inferq(stack, "schedules", "show", "report")).stdout
    assert "@hourly  UTC" in shown
    assert '"content": "Good evening!"' in shown
    assert (await answered(stack, "schedules", "show", "report"))["name"] == "report"
    assert "--cron, --timezone or --job" in (await inferq(stack, "schedules", "edit", "report")).stderr


async def test_what_a_job_says_of_itself_stands_on_the_command_line(
    tmp_path: Path, redis_url: str, template: Path
) -> None:
    settings = settings_for(tmp_path / "home", redis_url, webhooks={"allow_http": True})
    async with serving(settings, template) as stack:
        until = time.time() + 3600
        told = ("--webhook", "http://example.com/x", "--metadata", "order=7", "--metadata", "for=a=b")
        once = ("--expires-at", str(until), "--idempotency-key", "k")
        command = ("submit", "Hello!", *told, *once, "--async")
        job = await answered(stack, *command)
        assert (job["webhook"], job["expires_at"]) == ("http://example.com/x", until)
        assert job["metadata"] == {"order": "7", "for": "a=b"}
        assert (await answered(stack, *command))["id"] == job["id"]
        after = ("--after", job["id"], "--on-dependency-failure", "run")
        other = await answered(stack, "submit", "Hello!", *after, "--async")
        await stack.post(f"/v1/jobs/{job['id']}/cancel")
        assert (await stack.get(f"/v1/jobs/{other['id']}")).json()["state"] != "failed"
        wrong = await inferq(stack, "submit", "Hello!", "--metadata", "order")
        assert "NAME=VALUE" in wrong.stderr
        two = tmp_path / "two.json"
        two.write_text(json.dumps([JOB, JOB]))
        refused = await inferq(stack, "submit", str(two), "--idempotency-key", "k")
        assert "goes with one job" in refused.stderr


async def test_a_key_in_the_envelope_is_told_its_header(stack: Stack) -> None:
    answer = await stack.post("/v1/jobs", {**JOB, "idempotency_key": "k"})
    assert "header `Idempotency-Key`" in answer.json()["error"]["message"]
