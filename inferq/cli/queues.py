"""`inferq queues`: what waits and runs, and pause, resume, drain."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from inferq import errors
from inferq.cli import output
from inferq.client import Client

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="List queues; pause, resume and drain what is served.",
)

Model = Annotated[str, typer.Option("--model", "-m", help="A model.")]
Tenant = Annotated[str, typer.Option("--tenant", "-t", help="A tenant.")]
Lane = Annotated[str, typer.Option("--lane", "-l", help="high, medium or low, of all models.")]
Replica = Annotated[str, typer.Option("--replica", help="A replica: MODEL@DEVICE.HOST.")]
Node = Annotated[str, typer.Option("--node", help="A host.")]
Reason = Annotated[str, typer.Option("--reason", help="Shown to others.")]


@app.command("list")
def list_queues(
    tenants: Annotated[bool, typer.Option("--tenants", help="One line per tenant, too.")] = False,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show the jobs that wait and run, by model and lane, and what is paused.

    [bold]Examples[/bold]
      [cyan]inferq queues list --tenants[/cyan]
      [cyan]inferq queues list --json | jq '.data[] | select(.paused) | .model'[/cyan]
    """
    with Client.from_environment() as client:
        found = client.queues()
    if json:
        output.show_json(found)
        return
    output.console.print(_table(found["data"], tenants))
    for pause in found["pauses"]:
        output.console.print(output.stopped(pause))


@app.command()
def pause(
    model: Model = "",
    tenant: Tenant = "",
    lane: Lane = "",
    reason: Reason = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Start no more jobs of a model, a tenant or a lane. What waits keeps its place, what runs goes on.

    [bold]Examples[/bold]
      [cyan]inferq queues pause --model demo-chat --reason "new weights"[/cyan]
      [cyan]inferq queues pause --lane low[/cyan]
    """
    _stop(_one(model=model, tenant=tenant, lane=lane), reason, json)


@app.command()
def drain(
    replica: Replica = "",
    node: Node = "",
    reason: Reason = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Let a replica or a host finish what it runs and take nothing more.

    [bold]Example[/bold]
      [cyan]inferq queues drain --node gpu-2 --reason "new driver"[/cyan]
    """
    _stop(_one(replica=replica, node=node), reason, json)


@app.command()
@app.command("undrain", hidden=True)
def resume(
    model: Model = "",
    tenant: Tenant = "",
    lane: Lane = "",
    replica: Replica = "",
    node: Node = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Serve again what was paused or drained.

    [bold]Example[/bold]
      [cyan]inferq queues resume --model demo-chat[/cyan]
    """
    kind, name = _one(model=model, tenant=tenant, lane=lane, replica=replica, node=node)
    with Client.from_environment() as client:
        done = client.resume(kind, name)
    if done["was_stopped"] or json:
        _show(done, "resumed", json)
    else:
        output.notes.print(f"{kind} {escape(done['name'])} was neither paused nor drained")


def _one(**given: str) -> tuple[str, str]:
    chosen = [(kind, name) for kind, name in given.items() if name]
    if len(chosen) != 1:
        raise errors.InvalidRequest(f"name one of {', '.join(f'--{kind}' for kind in given)}")
    return chosen[0]


def _stop(chosen: tuple[str, str], reason: str, as_json: bool) -> None:
    kind, name = chosen
    with Client.from_environment() as client:
        done = client.pause(kind, name, reason)
    _show(done, "draining" if done["action"] == "drain" else "paused", as_json)


def _show(done: dict[str, Any], word: str, as_json: bool) -> None:
    if as_json:
        output.show_json(done)
        return
    print(f"{word} {done['kind']} {done['name']}")
    if not done["in_force"]:
        output.notes.print("[yellow]Redis is away: it takes effect when it is back[/yellow]")


def _table(queues: list[dict[str, Any]], tenants: bool) -> Any:
    columns = ("MODEL", ">HIGH", ">MEDIUM", ">LOW", ">RUNNING", ">WORK", "STATE")
    table = output.table(*columns)
    for queue in queues:
        waiting = [str(queue["waiting"][lane]) for lane in ("high", "medium", "low")]
        table.add_row(
            escape(queue["model"]),
            *waiting,
            str(sum(queue["running"].values())),
            output.span(queue["device_seconds"]),
            "[yellow]paused[/yellow]" if queue["paused"] else "",
        )
        for tenant in queue["tenants"] if tenants else []:
            table.add_row(
                f"  [dim]{escape(tenant['name'])}[/dim]",
                *("", str(tenant["waiting"]), "", str(tenant["running"])),
                output.span(tenant["device_seconds"]),
                "[yellow]paused[/yellow]" if tenant["paused"] else "",
            )
    return table
