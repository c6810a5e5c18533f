"""`inferq jobs watch`: one job followed by its events, or the list of jobs redrawn as it changes."""

import contextlib
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from inferq import errors
from inferq.cli import following, job_table, output
from inferq.client import Client, JobJson, JobPage
from inferq.job import TERMINAL, JobState

_EVERY_SECONDS = 1.0


def watch_one(client: Client, job_id: str, *, as_json: bool) -> Any:
    """The job in its terminal state, having shown the way there."""
    job = client.job(job_id)
    if not as_json:
        following.note_stops(client, [job])
        return following.wait_for(client, job)
    with contextlib.suppress(errors.NotFound):
        # Events are kept for a while only; the job itself is the answer in any case.
        for event in client.follow(job_id):
            output.show_json({"id": event.id, "event": event.name, "data": event.data})
    done = following.at_end(client, job_id)
    output.show_json(done)
    return done


def watch_all(client: Client, *, state: str, model: str, as_json: bool) -> None:
    """Until interrupted. In a pipe a line is written for each job whose state changed."""
    if as_json or not output.console.is_terminal:
        _print_changes(client, state, model, as_json)
        return
    with Live(console=output.console, refresh_per_second=4, transient=True) as live:
        while True:
            live.update(_screen(client, state, model))
            time.sleep(_EVERY_SECONDS)


def _screen(client: Client, state: str, model: str) -> RenderableType:
    try:
        jobs = _visible(client, state, model, max(output.console.height - 4, 6))
    except errors.Unavailable as error:
        return Text(error.message, style="red")
    note = Text(f"\n{time.strftime('%H:%M:%S')} · Ctrl-C ends this", style="dim")
    return Group(job_table.render(jobs) if jobs else Text("no jobs", style="dim"), note)


def _visible(client: Client, state: str, model: str, height: int) -> list[JobJson]:
    """What fits: running jobs, waiting ones by their place, then those that ended last."""
    if state:
        return client.jobs(limit=height, state=state, model=model)["data"]
    running = client.jobs(limit=height // 3, state="running", model=model)["data"]
    waiting = client.jobs(limit=height // 3, state="queued", model=model)["data"]
    # A list has no places: they are worth one question each for the few that are seen.
    waiting = sorted((client.job(job["id"]) for job in waiting), key=lambda job: job["position"] or 0)
    latest = client.jobs(limit=height, model=model)["data"]
    ended = [job for job in latest if JobState(job["state"]) in TERMINAL]
    # A job may have moved on between two questions; the last answer about it counts.
    return list({job["id"]: job for job in (*running, *waiting, *ended)}.values())[:height]


def _print_changes(client: Client, state: str, model: str, as_json: bool) -> None:
    seen: dict[str, tuple[str, int]] = {}
    while True:
        page: JobPage = client.jobs(limit=100, state=state, model=model)
        for job in reversed(page["data"]):
            mark = (job["state"], job["generation"])
            if seen.get(job["id"]) == mark:
                continue
            seen[job["id"]] = mark
            if as_json:
                output.show_json(job)
            else:
                print(f"{job['id']}  {job['state']:<9}  {job['lane']:<6}  {job['model']}", flush=True)
        time.sleep(_EVERY_SECONDS)
