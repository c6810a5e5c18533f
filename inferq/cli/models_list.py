"""`inferq models list` and `inferq models show`."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from inferq.cli import output
from inferq.client import Client

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command("list")
def list_models(
    local: Annotated[
        bool, typer.Option("--local", help="Also those that lie on the server and are not configured.")
    ] = False,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show the models: what they do, whether they are loaded, and how much work waits for each.

    [bold]Example[/bold]
      [cyan]inferq models list --json | jq -r '.[].id'[/cyan]
    """
    with Client.from_environment() as client:
        found = client.models(local=local)
    if json:
        output.show_json(found)
        return
    table = output.table("MODEL", "TYPE", "ENGINE", "STATE", ">SLOTS", ">WAITING", "ALIASES")
    for model in found:
        info = model.get("info", {})
        table.add_row(
            escape(model["id"]),
            str(info.get("type") or info.get("role") or "-"),
            escape(str(info.get("engine", "-"))),
            output.state(str(info.get("state", "-"))),
            str(info.get("slots", "-")),
            waiting(info.get("waiting")),
            escape(", ".join(info.get("aliases") or ())),
        )
    output.console.print(table)


def waiting(lanes: Any) -> str:
    """``0``, or the sum and its parts: ``7 (2 high, 5 low)``."""
    counts = {
        name: count for name, count in (lanes or {}).items() if name in ("high", "medium", "low") and count
    }
    if len(counts) <= 1:
        return "".join(f"{count} {name}" for name, count in counts.items()) or "0"
    return f"{sum(counts.values())} ({', '.join(f'{count} {name}' for name, count in counts.items())})"
