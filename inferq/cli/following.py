"""Waiting for a job in sight of its caller: position, estimate, progress. It must not change the job."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape

from inferq import errors
from inferq.cli import job_table, output
from inferq.client import Client, JobJson

_PATIENCE_SECONDS = 3.0


def wait_for(client: Client, job: Any, *, quiet: bool = False) -> Any:
    """The job in its terminal state. In a terminal one line tells where it stands; Ctrl-C leaves it be."""
    latest = job
    try:
        if quiet:
            return at_end(client, job["id"])
        if not output.notes.is_terminal:
            return _told_once(client, job["id"])
        with output.notes.status(describe(job)) as line:
            for latest in client.wait(job["id"]):
                line.update(describe(latest))
    except KeyboardInterrupt:
        output.notes.print(f"[dim]the job goes on; inferq jobs watch {job['id']}[/dim]", soft_wrap=True)
        raise
    return latest


def _told_once(client: Client, job_id: str) -> Any:
    """The job in its terminal state. One line tells what it waits for, unless that is over soon."""
    tell_at = time.monotonic() + _PATIENCE_SECONDS
    for latest in client.wait(job_id):
        if latest["state"] in ("scheduled", "queued") and time.monotonic() > tell_at:
            output.notes.print(f"waiting for {job_id}: {describe(latest)}", soft_wrap=True)
            tell_at = math.inf
    return latest


def at_end(client: Client, job_id: str) -> Any:
    """The job in its terminal state, awaited in silence."""
    return deque(client.wait(job_id), maxlen=1).pop()


def note_stops(client: Client, jobs: Iterable[JobJson]) -> None:
    """Tell what is paused or drained and keeps some of these jobs waiting. Never raises: it is a courtesy."""
    waiting = [job for job in jobs if job["state"] == "queued"]
    with contextlib.suppress(errors.InferqError):
        for pause in client.queues()["pauses"] if waiting else ():
            if any(_holds(pause, job) for job in waiting):
                output.notes.print(output.stopped(pause), soft_wrap=True)


def _holds(pause: Mapping[str, Any], job: JobJson) -> bool:
    name = str(pause["name"])
    if pause["kind"] == "replica":
        return name.startswith(f"{job['model']}@")
    mine = {"model": job["model"], "tenant": job["tenant"], "lane": job["lane"]}
    return mine.get(pause["kind"]) == name


def describe(job: Any) -> str:
    """One line: state, place in the queue, estimate, progress."""
    parts = [output.state(job["state"]), f"[bold]{escape(job['model'])}[/bold]"]
    if job["state"] == "queued":
        if job.get("position"):
            parts.append(f"position {job['position']}")
        if job.get("eta_seconds") is not None:
            parts.append(f"about {output.span(job['eta_seconds'])}")
    if job["state"] == "scheduled" and (starts := job_table.starts(job)):
        parts.append(starts)
    if job["state"] == "running":
        if job.get("progress") is not None:
            parts.append(f"{job['progress']:.0%}")
        if job.get("replica"):
            parts.append(f"[dim]{escape(job['replica'])}[/dim]")
    if job.get("attempt", 0) > 1:
        parts.append(f"attempt {job['attempt']} of {job['max_attempts']}")
    return " · ".join(parts)
