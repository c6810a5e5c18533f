"""Jobs as a table of one line each, and one job in full. It must not fetch anything."""

import time
from collections.abc import Iterable
from typing import Any

from rich.markup import escape
from rich.table import Table

from inferq.cli import output
from inferq.client import JobJson


def render(jobs: Iterable[JobJson]) -> Table:
    """Fits 80 columns: an id is 36 wide, and must stay whole to be copied."""
    table = output.table("JOB", "MODEL", "LANE", "STATE", "WHEN")
    table.columns[1].overflow = "ellipsis"
    for job in jobs:
        table.add_row(job["id"], escape(job["model"]), job["lane"], output.state(job["state"]), _when(job))
    return table


def failures(jobs: Iterable[JobJson]) -> Table:
    """Failed jobs and why, one line each; a long message is cut."""
    table = output.table("JOB", "MODEL", "WHEN", "ERROR")
    table.columns[1].overflow = table.columns[3].overflow = "ellipsis"
    for job in jobs:
        error = job["error"] or {"code": "-", "message": ""}
        why = f"[red]{escape(error['code'])}[/red] {escape(' '.join(error['message'].split()))}"
        table.add_row(job["id"], escape(job["model"]), output.age(job["finished_at"]), why)
    return table


def details(job: JobJson) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _facts(job):
        if value not in (None, "", "-"):
            grid.add_row(name, value)
    return grid


def starts(job: JobJson) -> str:
    """What a scheduled job waits for."""
    due = job.get("due_at")
    at = output.ahead(due) if due and due > time.time() else ""
    return ", ".join(filter(None, (at, "after other jobs" if job.get("depends_on") else "")))


def _when(job: JobJson) -> str:
    """What one wants to know in this state: the place in the queue, the run so far, or when it ended."""
    if job["state"] == "scheduled":
        return starts(job) or output.age(job["created_at"])
    if job["state"] == "queued":
        place = f"#{job['position']}" if job.get("position") else ""
        eta = f"~{output.span(job['eta_seconds'])}" if job.get("eta_seconds") is not None else ""
        return " ".join(filter(None, (place, eta))) or output.age(job["created_at"])
    if job["state"] == "running":
        progress = f"{job['progress']:.0%} " if job.get("progress") is not None else ""
        # Redis may have forgotten since when; then what counts is when it was accepted.
        since = job["started_at"] or job["created_at"]
        return f"{progress}{output.span(time.time() - since)}" if since else progress or "-"
    return output.age(job["finished_at"])


def _facts(job: JobJson) -> Iterable[tuple[str, str]]:
    yield "job", job["id"]
    yield "state", output.state(job["state"])
    if job["error"]:
        yield "error", f"[red]{escape(job['error']['code'])}[/red]: {escape(job['error']['message'])}"
    yield "model", escape(job["model"])
    yield "endpoint", job["endpoint"]
    yield "lane", job["lane"]
    if job["position"]:
        yield "position", str(job["position"])
    yield "estimate", output.span(job["eta_seconds"])
    if job.get("due_at"):
        yield "due", output.clock(job["due_at"])
    yield "after", ", ".join(job.get("depends_on", ()))
    if job["finished_at"] is None:
        yield "expires", output.clock(job.get("expires_at"))
    yield "attempt", f"{job['attempt']} of {job['max_attempts']}"
    yield "replica", escape(job["replica"] or "")
    yield "group", job.get("group") or ""
    yield "source", escape(f"{job['source']} ({job['tenant']})")
    yield "created", output.age(job["created_at"])
    yield "waited", output.span(_between(job["queued_at"], job["started_at"]))
    yield "ran", output.span(_between(job["started_at"], job["finished_at"]))
    yield "ended", output.clock(job["finished_at"])
    if job["metadata"]:
        yield "metadata", escape(_pairs(job["metadata"]))
    yield "artifact", job["artifact"] or ""


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


def _pairs(metadata: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in metadata.items())
