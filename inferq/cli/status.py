"""`inferq status`: one look at the whole of a running stack."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from inferq.cli import output
from inferq.cli.models_list import waiting
from inferq.client import Client

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def status(json: Annotated[bool, output.JSON] = False) -> None:
    """Show replicas, nodes, queues, what is paused or drained, and whether Redis and the job store answer.

    [bold]Example[/bold]
      [cyan]inferq status --json | jq '.queues'[/cyan]
    """
    with Client.from_environment() as client:
        found = client.status()
        url = client.url
    if json:
        output.show_json(found)
        return
    stores = "  ".join(f"{name} {_health(found.get(name))}" for name in ("redis", "database"))
    uptime = output.span(found.get("uptime_seconds"))
    output.console.print(f"[bold]inferq {found.get('version')}[/bold]  {url}  up {uptime}  {stores}")
    output.console.print(f"[dim]home {escape(str(found.get('home')))}[/dim]")
    pauses = found.get("pauses") or []
    for title, table in (
        ("Replicas", _replicas(found.get("replicas") or (), pauses)),
        ("Nodes", _nodes(found.get("nodes") or ())),
        ("Waiting", _queues(found.get("queues") or {})),
    ):
        output.console.print(f"\n[bold]{title}[/bold]")
        output.console.print(table if table.row_count else "[dim]  none[/dim]")
    if pauses:
        output.console.print("\n[bold]Stopped[/bold]")
    for pause in pauses:
        output.console.print(output.stopped(pause))


def _health(part: Any) -> str:
    return output.state("ok") if isinstance(part, dict) and part.get("ok") else output.state("away")


def _replicas(replicas: Iterable[dict[str, Any]], pauses: Iterable[dict[str, Any]]) -> Table:
    drained = {(pause["kind"], pause["name"]) for pause in pauses}
    table = output.table("MODEL", "DEVICE", "STATE", ">BUSY", ">DONE", ">MEMORY", ">LOAD", ">PID")
    for replica in replicas:
        state = output.state(str(replica["state"]))
        if {("replica", replica["name"]), ("node", replica["node"])} & drained:
            state += " [yellow]drained[/yellow]"
        table.add_row(
            escape(str(replica["model"])),
            escape(str(replica["device"])),
            state,
            f"{replica.get('busy', 0)}/{replica.get('slots', 0)}",
            str(replica.get("jobs_done", 0)),
            output.size(replica.get("memory_bytes")),
            output.span(replica.get("load_seconds")),
            str(replica.get("pid", "-")),
        )
        if replica.get("circuit", "closed") != "closed":
            table.add_row(f"  [yellow]circuit {replica['circuit']}: {_rests(replica)}[/yellow]")
        if replica.get("error"):
            table.add_row(f"  [red]{escape(str(replica['error'])[:70])}[/red]")
    return table


def _rests(replica: dict[str, Any]) -> str:
    if replica["circuit"] == "half_open":
        return "takes one job to try its engine"
    return f"takes no job for {output.span(replica.get('circuit_left'))} more"


def _nodes(nodes: Iterable[dict[str, Any]]) -> Table:
    table = output.table("NODE", ">CPU", ">MEMORY", "DEVICES")
    for node in nodes:
        devices = (
            f"{device['name']} {output.size(device.get('memory_free'))} free" for device in node["devices"]
        )
        table.add_row(
            escape(str(node["name"])),
            f"{node.get('cpu_percent') or 0:.0f} %",
            f"{output.size(node.get('memory_used'))} of {output.size(node.get('memory_total'))}",
            escape(", ".join(devices)),
        )
    return table


def _queues(queues: dict[str, Any]) -> Table:
    table = output.table("MODEL", "JOBS")
    for model, lanes in sorted(queues.items()):
        table.add_row(escape(model), waiting(lanes))
    return table
