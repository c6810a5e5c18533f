"""The stops about the queue: a high job passes low ones, and durable jobs outlive the process that runs them."""

import os
import signal
import time
from collections import Counter
from typing import Any

from inferq.cli import output
from inferq.cli.tour.stop import CHAT_MODEL, fail, hold, request, tell
from inferq.client import Client, JobJson
from inferq.job import TERMINAL, JobState

_LONG_PROMPT = "Tell me a story."
_BURST = 24
_DURABLE = 12
# A lease, one load of the model, and the work, on a slow machine.
_PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 0.3


def lanes(client: Client) -> str:
    low = [_submit(client, "low") for _ in range(_BURST)]
    tell(f"{_BURST} low jobs are in; the last one is at {_place(client.job(low[-1]['id']))}")
    high = _submit(client, "high")
    tell(f"one high job is in, at {_place(client.job(high['id']))}")
    (done,) = _await_all(client, [high])
    hold(done["state"] == "succeeded", f"the high job ended as {done['state']}")
    finished_first = done["finished_at"] or 0.0
    ended = _await_all(client, low)
    hold(all(job["state"] == "succeeded" for job in ended), f"of the low jobs: {_states(ended)}")
    behind = sum((job["finished_at"] or 0.0) > finished_first for job in ended)
    hold(behind > 0, "the high job ended after all the low ones that were there before it")
    return f"the high job ended before {behind} of the {_BURST} low jobs that were there first"


def survive_a_kill(client: Client) -> str:
    jobs = [_submit(client, "medium") for _ in range(_DURABLE)]
    running = _await_running(client, jobs)
    replica = _replica(client)
    tell(
        f"{running} jobs are running, {_DURABLE - running} wait; kill -9 {replica['pid']} ({replica['name']})",
        "red",
    )
    try:
        os.kill(int(replica["pid"]), signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        fail("that process is not ours: give the tour on the machine, and as the user, of the stack")
    began = time.monotonic()
    tell("their leases run out, a new replica loads the model, and the jobs run again")
    ended = _await_all(client, jobs)
    hold(all(job["state"] == "succeeded" for job in ended), f"not all succeeded: {_states(ended)}")
    again = sum(job["attempt"] > 1 for job in ended)
    hold(again, "no job was running when the replica was killed; try again")
    taken = output.span(time.monotonic() - began)
    return f"all {_DURABLE} jobs succeeded {taken} after the kill, {again} of them in a second attempt"


def _submit(client: Client, lane: str) -> JobJson:
    body = request(_LONG_PROMPT)
    return client.submit({"model": CHAT_MODEL, "priority": lane, "body": body, "metadata": {"from": "tour"}})


def _place(job: JobJson) -> str:
    if job["position"] is None:
        return f"no position: it is {job['state']}"
    eta = f", about {output.span(job['eta_seconds'])}" if job["eta_seconds"] else ", next"
    return f"position {job['position']}{eta}"


def _replica(client: Client) -> dict[str, Any]:
    for replica in client.status()["replicas"]:
        if replica["model"] == CHAT_MODEL and replica["state"] == "ready":
            return dict(replica)
    return fail(f"there is no replica of {CHAT_MODEL}")


def _await_running(client: Client, jobs: list[JobJson]) -> int:
    """How many run, once any does."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        states = Counter(client.job(job["id"])["state"] for job in jobs)
        if states["running"]:
            return states["running"]
        hold(states["queued"], "all jobs ended before one was seen running")
    return fail("no job began to run")


def _await_all(client: Client, jobs: list[JobJson]) -> list[JobJson]:
    """The jobs in their terminal states, with a line about them while they are awaited."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    latest = {job["id"]: job for job in jobs}
    with output.console.status("") as line:
        while open_jobs := [job for job in latest.values() if JobState(job["state"]) not in TERMINAL]:
            hold(
                time.monotonic() < deadline,
                f"after {_PATIENCE_SECONDS:.0f} s: {_states(list(latest.values()))}",
            )
            for job in open_jobs:
                latest[job["id"]] = client.job(job["id"])
            line.update(_states(list(latest.values())))
            time.sleep(_LOOK_SECONDS)
    return list(latest.values())


def _states(jobs: list[JobJson]) -> str:
    return ", ".join(
        f"{count} {state}" for state, count in sorted(Counter(job["state"] for job in jobs).items())
    )
