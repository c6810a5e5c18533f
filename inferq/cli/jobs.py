"""`inferq jobs`: look at jobs, and cancel or run them again."""

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from inferq import errors
from inferq.cli import answer, exits, following, job_table, output, watching
from inferq.client import Client, JobJson
from inferq.lanes import parse_lane

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="List, show, watch, cancel and retry jobs.",
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
State = Annotated[
    str, typer.Option("--state", "-s", help="queued, running, succeeded, failed, cancelled, ...")
]
Model = Annotated[str, typer.Option("--model", "-m", help="Only this model.")]
Priority = Annotated[str, typer.Option("--priority", "-p", help="high, medium, low, or 0 to 9.")]


@app.command("list")
def list_jobs(
    state: State = "",
    model: Model = "",
    lane: Annotated[str, typer.Option("--lane", "-l", help="high, medium or low.")] = "",
    source: Annotated[str, typer.Option(help="Where they came from: api, or a watched folder.")] = "",
    tenant: Annotated[str, typer.Option(help="Only this tenant, for keys that see all.")] = "",
    group: Annotated[str, typer.Option(help="Only jobs of this group.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="Jobs per page.")] = 20,
    cursor: Annotated[str, typer.Option(help="Go on after an earlier page.")] = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show jobs, newest first.

    [bold]Examples[/bold]
      [cyan]inferq jobs list --state failed[/cyan]
      [cyan]inferq jobs list --model demo-chat --json | jq -r '.data[].id'[/cyan]
    """
    with Client.from_environment() as client:
        filters = {"state": state, "model": model, "lane": lane, "source": source, "tenant": tenant}
        page = client.jobs(group=group, limit=limit, cursor=cursor, **filters)
    if json:
        output.show_json(page)
        return
    if not page["data"]:
        output.notes.print("[dim]no jobs[/dim]")
        return
    output.console.print(job_table.render(page["data"]))
    if page["has_more"]:
        output.notes.print(f"[dim]more: --cursor {page['next_cursor']}[/dim]")


@app.command()
def show(
    job: JobId,
    result: Annotated[bool, typer.Option("--result", help="Only the result, as the engine gave it.")] = False,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show one job: where it stands, why it failed, what it answered."""
    with Client.from_environment() as client:
        if result:
            sys.stdout.buffer.write(client.result(job))
            sys.stdout.buffer.flush()
            return
        found = client.job(job)
        if json:
            output.show_json(found)
            return
        output.console.print(job_table.details(found))
        following.note_stops(client, [found])
    if found["state"] == "succeeded" and found.get("result") is not None:
        output.console.print()
        print(answer.text_of(found["result"]))


@app.command()
def watch(
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="A job's id; without it all jobs.")] = "",
    state: State = "",
    model: Model = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Watch one job to its end, or all jobs as they wait and run (Ctrl-C ends it).

    With --json: one line per event of the job, or per change of the list.

    [bold]Examples[/bold]
      [cyan]inferq jobs watch[/cyan]
      [cyan]inferq jobs watch "$(inferq submit 'Hello!' --async)"[/cyan]
    """
    with Client.from_environment() as client:
        if not job:
            watching.watch_all(client, state=state, model=model, as_json=json)
            return
        done = watching.watch_one(client, job, as_json=json)
    if not json:
        answer.show(done)
    if done["state"] != "succeeded":
        sys.exit(exits.JOB_NOT_SUCCEEDED)


@app.command()
def cancel(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs.")],
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Cancel jobs. One that has ended stays as it is."""
    with Client.from_environment() as client:
        for job in jobs:
            _show_changed(client.cancel(job), json)


@app.command()
def retry(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs that have ended.")],
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Run jobs that have ended again, as they were asked."""
    with Client.from_environment() as client:
        for job in jobs:
            _show_changed(client.retry(job), json)


@app.command()
def requeue(
    job: JobId,
    body: Annotated[str, typer.Option(help="A new body: JSON, or @FILE.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="Another model.")] = "",
    priority: Priority = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Run a job that has ended again, with changes.

    [bold]Example[/bold]
      [cyan]inferq jobs requeue 0199... --priority high --body @fixed.json[/cyan]
    """
    edits: dict[str, Any] = {"model": model, "priority": priority and parse_lane(priority).value}
    if body:
        edits["body"] = parse_body(body)
    with Client.from_environment() as client:
        _show_changed(client.requeue(job, {name: value for name, value in edits.items() if value}), json)


@app.command()
def move(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs that have not ended.")],
    priority: Annotated[str, typer.Option("--priority", "-p", help="high, medium, low, or 0 to 9.")],
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Give waiting jobs another priority. They keep the time at which they came.

    [bold]Example[/bold]
      [cyan]inferq jobs move 0199... --priority high[/cyan]
    """
    lane = parse_lane(priority).value
    with Client.from_environment() as client:
        for job in jobs:
            moved = client.reprioritise(job, lane)
            if json:
                output.show_json(moved)
                continue
            output.console.print(
                f"{escape(moved['id'])}  {output.state(moved['state'])}  {moved['lane']} lane"
            )
            if moved["lane"] != lane:
                output.notes.print(f"[yellow]this key may use no lane above {moved['lane']}[/yellow]")


def parse_body(text: str) -> Any:
    """JSON, or @FILE with JSON in it. Raises InvalidRequest."""
    try:
        if text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        return jsonlib.loads(text)
    except OSError as error:
        raise errors.InvalidRequest(f"--body: cannot read {text[1:]}: {error.strerror}") from error
    except ValueError as error:
        raise errors.InvalidRequest(f"--body is not valid JSON: {error}") from error


def _show_changed(job: JobJson, as_json: bool) -> None:
    if as_json:
        output.show_json(job)
    else:
        output.console.print(f"{escape(job['id'])}  {output.state(job['state'])}")
