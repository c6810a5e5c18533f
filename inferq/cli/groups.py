"""`inferq groups`: jobs that were accepted together."""

from typing import Annotated, Any

import typer

from inferq.cli import output
from inferq.client import Client

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="List, show and cancel groups of jobs.",
)

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
def show(group: GroupId, json: Annotated[bool, output.JSON] = False) -> None:
    """Show how many jobs of a group are in which state.

    [bold]Example[/bold]
      [cyan]inferq groups show 01993c5e-7a51-7c1e-8f1e-5b0c7e0f2a11[/cyan]
    """
    with Client.from_environment() as client:
        _show(client.group(group), json)


@app.command()
def cancel(group: GroupId, json: Annotated[bool, output.JSON] = False) -> None:
    """Cancel the jobs of a group that have not ended."""
    with Client.from_environment() as client:
        _show(client.cancel_group(group), json)


def _show(group: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(group)
        return
    output.console.print(f"{group['id']}  {group['progress']:.0%} of {group['total']} jobs  {_states(group)}")


def _states(group: dict[str, Any]) -> str:
    return (
        "  ".join(f"{count} {output.state(name)}" for name, count in group["counts"].items() if count) or "-"
    )
