"""`inferq schedules`: jobs that come again."""

import json as jsonlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from inferq import errors
from inferq.cli import job_file, output
from inferq.client import Client

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="List, show, create, edit, pause, resume and delete jobs that come again.",
)

Which = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Its name or id.")]


@app.command("list")
def list_schedules(json: Annotated[bool, output.JSON] = False) -> None:
    """Show all schedules by name.

    [bold]Example[/bold]
      [cyan]inferq schedules list[/cyan]
    """
    with Client.from_environment() as client:
        found = client.schedules()
    if json:
        output.show_json(found)
        return
    table = output.table("NAME", "CRON", "TIME ZONE", "NEXT RUN", "LAST RUN", "LAST JOB")
    for schedule in found:
        table.add_row(
            escape(str(schedule["name"])),
            escape(str(schedule["cron"])),
            escape(str(schedule["timezone"])),
            _when(schedule),
            output.age(schedule["last_at"]),
            f"[red]{escape(schedule['last_error'])}[/red]"
            if schedule["last_error"]
            else schedule["last_job"] or "-",
        )
    output.console.print(table)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Your name for it.")],
    cron: Annotated[str, typer.Argument(help="Five fields, six with seconds first, or @daily and the like.")],
    job: Annotated[str, typer.Argument(help="A prompt, or the path of a job file.")],
    timezone: Annotated[str, typer.Option("--timezone", "-z", help="Such as Europe/Berlin.")] = "UTC",
    model: Annotated[str, typer.Option("--model", "-m", help="Default: the first that fits.")] = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Make a job come again.

    [bold]Example[/bold]
      [cyan]inferq schedules create report "30 6 * * MON-FRI" report.json --timezone Europe/Berlin[/cyan]
    """
    with Client.from_environment() as client:
        envelope = job_file.complete(_one(job), {"model": model}, client.models)
        wanted = {"name": name, "cron": cron, "timezone": timezone, "job": envelope}
        _show(client.create_schedule(wanted), json)


@app.command()
def show(schedule: Which, json: Annotated[bool, output.JSON] = False) -> None:
    """Show one: when it runs, what became of the last run, and its job.

    [bold]Example[/bold]
      [cyan]inferq schedules show report[/cyan]
    """
    with Client.from_environment() as client:
        found = client.schedule(schedule)
    _show(found, json)
    if json:
        return
    output.console.print(f"{escape(found['cron'])}  {escape(found['timezone'])}")
    if found["last_at"]:
        what = f"[red]{escape(found['last_error'])}[/red]" if found["last_error"] else found["last_job"] or ""
        output.console.print(f"last run {output.age(found['last_at'])}  {what}")
    print(jsonlib.dumps(found["job"], indent=2, ensure_ascii=False))


@app.command()
def edit(
    schedule: Which,
    cron: Annotated[str, typer.Option(help="Another time, as create takes it.")] = "",
    timezone: Annotated[str, typer.Option("--timezone", "-z", help="Another time zone.")] = "",
    job: Annotated[str, typer.Option(help="Another job: a prompt, or the path of a job file.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="Of that job, where it names none.")] = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Change when it runs, or what; the next run is the next time from now.

    [bold]Example[/bold]
      [cyan]inferq schedules edit report --cron @hourly --job report.json[/cyan]
    """
    changes: dict[str, Any] = {"cron": cron, "timezone": timezone}
    changes = {name: value for name, value in changes.items() if value}
    with Client.from_environment() as client:
        if job:
            changes["job"] = job_file.complete(_one(job), {"model": model}, client.models)
        if not changes:
            raise errors.InvalidRequest("name what to change: --cron, --timezone or --job")
        _show(client.change_schedule(schedule, changes), json)


@app.command()
def pause(schedule: Which, json: Annotated[bool, output.JSON] = False) -> None:
    """Let it rest until it is resumed."""
    with Client.from_environment() as client:
        _show(client.change_schedule(schedule, {"enabled": False}), json)


@app.command()
def resume(schedule: Which, json: Annotated[bool, output.JSON] = False) -> None:
    """Go on with the next time from now."""
    with Client.from_environment() as client:
        _show(client.change_schedule(schedule, {"enabled": True}), json)


@app.command()
def delete(schedule: Which) -> None:
    """Delete it. Jobs that it has made stay."""
    with Client.from_environment() as client:
        client.delete_schedule(schedule)
    output.notes.print(f"deleted {escape(schedule)}")


def _one(source: str) -> dict[str, Any]:
    path = Path(source)
    if not source.endswith(".json"):
        return job_file.from_prompt(source, "")
    if not path.is_file():
        raise errors.ConfigError(f"there is no file {source}")
    jobs = job_file.parse(path.read_text(encoding="utf-8"), source, "")
    if len(jobs) != 1:
        raise errors.InvalidRequest(f"{source} holds {len(jobs)} jobs; a schedule takes one")
    return jobs[0]


def _when(schedule: dict[str, Any]) -> str:
    if schedule["next_at"] is None:
        return "[dim]paused[/dim]"
    return f"in {output.span(max(schedule['next_at'] - time.time(), 0))}"


def _show(schedule: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(schedule)
        return
    output.console.print(f"{escape(str(schedule['name']))}: {_when(schedule)}")
    for moment in schedule["next_times"]:
        shown = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(moment))
        output.notes.print(f"[dim]{shown}[/dim]")
