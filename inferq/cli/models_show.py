"""`inferq models show`."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from inferq.cli import models_list, output
from inferq.client import Client

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or alias of a model.")],
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show one model: what it takes, what was measured when it was last loaded, what its engine says of it."""
    with Client.from_environment() as client:
        found = client.model(model)
    if json:
        output.show_json(found)
        return
    table = output.table("", "")
    table.show_header = False
    table.columns[1].no_wrap = False
    for name, value in _rows(found["id"], found["info"]):
        table.add_row(f"[dim]{name}[/dim]", value)
    output.console.print(table)


def _rows(name: str, info: dict[str, Any]) -> list[tuple[str, str]]:
    devices = info.get("devices") or ()
    rows = {
        "model": f"[bold]{escape(name)}[/bold]",
        "state": output.state(str(info.get("state"))),
        "type": str(info.get("type")),
        "engine": escape(str(info.get("engine"))),
        "device": escape(", ".join(devices) or str(info.get("device"))),
        "endpoints": ", ".join(info.get("endpoints") or ()),
        "aliases": escape(", ".join(info.get("aliases") or ())),
        "description": escape(str(info.get("description") or "")),
        "context": f"{info['context']} tokens" if info.get("context") else "",
        "slots": str(info.get("slots")),
        "waiting": models_list.waiting(info.get("waiting")),
        "last load": output.span(info["load_seconds"]) if info.get("load_seconds") else "",
        "memory": output.size(info["memory_bytes"]) if info.get("memory_bytes") else "",
        "limits": _joined(info.get("limits")),
        **{f"  {fact}": _said(value) for fact, value in (info.get("facts") or {}).items()},
    }
    return [(name, value) for name, value in rows.items() if value]


def _joined(values: Any) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in (values or {}).items())


def _said(value: Any) -> str:
    """A fact in one line: lists by their members, objects by their pairs."""
    if isinstance(value, list):
        return escape(", ".join(map(str, value)))
    if isinstance(value, dict):
        return escape(", ".join(f"{name} {each}" for name, each in value.items()))
    return escape(str(value))
