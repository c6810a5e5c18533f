"""`inferq jobs watch`: one job followed by its events, or the list of jobs redrawn as it changes."""

import contextlib
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from inferq import errors
from inferq.cli import following, job_table, output
from inferq.client import Client, JobPage

_EVERY_SECONDS = 1.0


def watch_one(client: Client, job_id: str, *, as_json: bool) -> Any:
    """The job in its terminal state, having shown the way there."""
    job = client.job(job_id)
    if not as_json:
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
        page = client.jobs(limit=max(output.console.height - 4, 5), state=state, model=model)
    except errors.Unavailable as error:
        return Text(error.message, style="red")
    clock = time.strftime("%H:%M:%S")
    if not page["data"]:
        return Text(f"no jobs · {clock}", style="dim")
    more = " · and older ones" if page["has_more"] else ""
    return Group(job_table.render(page["data"]), Text(f"\n{clock}{more} · Ctrl-C ends this", style="dim"))


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
