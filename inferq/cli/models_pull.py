"""`inferq models pull`: asks the server to bring a model, and shows how far it is. The server does the work."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from inferq.cli import answer, exits, following, output
from inferq.client import Client
from inferq.lanes import parse_lane

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command("pull")
def pull_model(
    source: Annotated[
        str, typer.Argument(help="org/name, modelscope:org/name, an https:// URL, or a folder of the server.")
    ],
    name: Annotated[
        str, typer.Option("--name", "-n", help="Folder under models/. Default: the source's last part.")
    ] = "",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "",
    include: Annotated[list[str] | None, typer.Option(help="Only files like this, such as '*.json'.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files like this, such as '*.bin'.")] = None,
    file: Annotated[list[str] | None, typer.Option(help="Only this file.")] = None,
    sha256: Annotated[str, typer.Option(help="Checksum of the one file.")] = "",
    priority: Annotated[str, typer.Option("--priority", "-p", help="high, medium, low, or 0 to 9.")] = "",
    wait: Annotated[
        bool, typer.Option("--wait/--async", help="Wait for the end, or print the job's id and end.")
    ] = True,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Bring a model into models/ of the server: checked, resumed when it was cut off, and never half there.

    It is a job: Ctrl-C ends the waiting, not the job. Needs the role admin.

    [bold]Examples[/bold]
      [cyan]inferq models pull org/name --exclude '*.bin'[/cyan]
      [cyan]inferq models pull modelscope:org/name --name short[/cyan]
      [cyan]inferq models pull https://host/style.safetensors --sha256 2cf2...[/cyan]
    """
    wanted = {
        "source": _source(source),
        "name": name,
        "revision": revision,
        "include": include,
        "exclude": exclude,
        "files": file,
        "sha256": sha256,
        "priority": priority and parse_lane(priority).value,
    }
    with Client.from_environment() as client:
        job = client.pull({key: value for key, value in wanted.items() if value})
        if not wait:
            output.show_json(job) if json else print(job["id"])
            return
        done = _followed(client, job, quiet=json)
        if json:
            output.show_json(done)
        elif done["state"] == "succeeded":
            _show(client, done["result"])
        else:
            answer.show(done)
    if done["state"] != "succeeded":
        sys.exit(exits.JOB_NOT_SUCCEEDED)


def _source(text: str) -> str:
    """A folder is the server's; one that begins with a dot is meant from here."""
    return str(Path(text).expanduser().resolve()) if text.startswith((".", "~")) else text


def _followed(client: Client, job: Any, *, quiet: bool) -> Any:
    """The job in its terminal state. In a terminal a bar shows how far it is; Ctrl-C leaves it be."""
    try:
        if quiet or not output.notes.is_terminal:
            return following.at_end(client, job["id"])
        return _drawn(client.wait(job["id"]), job)
    except KeyboardInterrupt:
        output.notes.print(
            f"[dim]the pull goes on; inferq jobs watch {job['id']}, or inferq jobs cancel {job['id']}[/dim]",
            soft_wrap=True,
        )
        raise


def _drawn(states: Iterable[Any], accepted: Any) -> Any:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=output.notes,
        transient=True,
    )
    with bar:
        latest = accepted
        line = bar.add_task(following.describe(accepted), total=None)
        for latest in states:
            share = latest.get("progress")
            bar.update(
                line,
                description=output.state(latest["state"]),
                total=None if share is None else 1.0,
                completed=share or 0.0,
            )
    return latest


def _show(client: Client, result: Any) -> None:
    what = "was there already" if result["unchanged"] else "is there now"
    print(f"{result['folder']} {what}: {result['files']} files, {output.size(result['bytes'])}")
    for model in client.models(local=True):
        proposal = model["info"].get("suggestion")
        if proposal and model["id"].split("/")[0] == result["name"]:
            output.notes.print("[dim]to use it, add to the configuration:[/dim]")
            output.notes.print(escape(proposal), soft_wrap=True, end="")
