"""`inferq groups`: jobs that were accepted together."""

import contextlib
import functools
import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from inferq import errors
from inferq.cli import job_file, job_table, output
from inferq.client import Client

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Create, list, show and cancel groups of jobs.",
)

_SHOWN = 100
"""Jobs that are shown with their group."""

GroupId = Annotated[str, typer.Argument(metavar="GROUP", help="The group's id.")]


@app.command("list")
def list_groups(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="Groups per page.")] = 20,
    cursor: Annotated[str, typer.Option(help="Go on after an earlier page.")] = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show groups, newest first.

    [bold]Examples[/bold]
      [cyan]inferq groups list[/cyan]
      [cyan]inferq groups list --json | jq -r '.data[].id'[/cyan]
    """
    with Client.from_environment() as client:
        page = client.groups(limit=limit, cursor=cursor)
    if json:
        output.show_json(page)
        return
    table = output.table("ID", ">JOBS", ">DONE", "CREATED", "FINISHED", "STATES")
    for group in page["data"]:
        table.add_row(
            str(group["id"]),
            str(group["total"]),
            f"{group['progress']:.0%}",
            output.age(group["created_at"]),
            output.age(group["finished_at"]),
            _states(group),
        )
    output.console.print(table)
    if page["has_more"]:
        output.notes.print(f"[dim]more: --cursor {page['next_cursor']}[/dim]")


@app.command()
def create(
    file: Annotated[str, typer.Argument(help="A job file with several jobs, or - for standard input.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model of jobs that name none.")] = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Accept jobs together, all or none. In depends_on, "#0" is the first job of the file.

    The file holds an array of jobs, one per line, or {"jobs": [...], "webhook", "metadata"}.

    [bold]Example[/bold]
      [cyan]inferq groups create examples/batch.jsonl[/cyan]
    """
    wanted = _read(file)
    with Client.from_environment() as client:
        models = functools.cache(client.models)
        jobs = [job_file.complete({"model": model, **job}, {}, models) for job in wanted["jobs"]]
        made = client.create_group({**wanted, "jobs": jobs})
    if json:
        output.show_json(made)
        return
    print(made["id"])
    output.notes.print(f"[dim]{made['total']} jobs; inferq groups show {made['id']}[/dim]", soft_wrap=True)


@app.command()
def show(group: GroupId, json: Annotated[bool, output.JSON] = False) -> None:
    """Show a group and its jobs, newest first; with --json the group alone.

    [bold]Examples[/bold]
      [cyan]inferq groups show 01993c5e-7a51-7c1e-8f1e-5b0c7e0f2a11[/cyan]
      [cyan]inferq jobs list --group 01993c5e-7a51-7c1e-8f1e-5b0c7e0f2a11 --json[/cyan]
    """
    with Client.from_environment() as client:
        _show(client.group(group), json)
        if json:
            return
        page = client.jobs(group=group, limit=_SHOWN)
    output.console.print(job_table.render(page["data"]))
    if page["has_more"]:
        output.notes.print(
            f"[dim]more: inferq jobs list --group {group} --cursor {page['next_cursor']}[/dim]"
        )


@app.command()
def cancel(group: GroupId, json: Annotated[bool, output.JSON] = False) -> None:
    """Cancel the jobs of a group that have not ended."""
    with Client.from_environment() as client:
        _show(client.cancel_group(group), json)


def _read(file: str) -> dict[str, Any]:
    """The group as the API takes it. Raises InvalidRequest, ConfigError."""
    if file == "-":
        text = sys.stdin.read()
    elif Path(file).is_file():
        text = Path(file).read_text(encoding="utf-8")
    else:
        raise errors.ConfigError(f"there is no file {file}")
    with contextlib.suppress(ValueError):
        whole = jsonlib.loads(text)
        if isinstance(whole, dict) and isinstance(whole.get("jobs"), list):
            return {**whole, "jobs": job_file.parse(jsonlib.dumps(whole["jobs"]), file, "")}
    return {"jobs": job_file.parse(text, file, "")}


def _show(group: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(group)
        return
    output.console.print(f"{group['id']}  {group['progress']:.0%} of {group['total']} jobs  {_states(group)}")


def _states(group: dict[str, Any]) -> str:
    return (
        "  ".join(f"{count} {output.state(name)}" for name, count in group["counts"].items() if count) or "-"
    )
