"""`inferq keys`: API keys, by an admin key."""

from typing import Annotated

import typer
from rich.markup import escape

from inferq.cli import output
from inferq.client import Client

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Create, list and revoke API keys.",
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists.")],
    role: Annotated[str, typer.Option("--role", "-r", help="readonly, user or admin.")] = "user",
    tenant: Annotated[str, typer.Option(help="Whose budget it draws on; default: its own.")] = "",
    weight: Annotated[float | None, typer.Option(help="Share beside other tenants; default 1.")] = None,
    lane: Annotated[
        str, typer.Option("--lane", "-l", help="Highest lane of its jobs: high, medium, low.")
    ] = "",
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Make a key. It is shown this once, and kept only as a hash.

    [bold]Examples[/bold]
      [cyan]inferq keys create laptop[/cyan]
      [cyan]export INFERQ_API_KEY="$(inferq keys create ci --role user)"[/cyan]
    """
    with Client.from_environment() as client:
        made = client.create_key(name, role, tenant=tenant or None, weight=weight or None, lane=lane or None)
    if json:
        output.show_json(made)
        return
    print(made["key"])
    output.notes.print(f"[dim]{made['role']} key {escape(made['name'])}; it is not shown again[/dim]")


@app.command("list")
def list_keys(json: Annotated[bool, output.JSON] = False) -> None:
    """Show the keys' names, roles and tenants, never the keys."""
    with Client.from_environment() as client:
        found = client.keys()
    if json:
        output.show_json(found)
        return
    table = output.table("ID", "NAME", "ROLE", "TENANT", ">WEIGHT", "LANE", "CREATED", "STATE")
    for key in found:
        table.add_row(
            str(key["id"]),
            escape(str(key["name"])),
            str(key["role"]),
            escape(str(key.get("tenant") or "-")),
            f"{key.get('weight', 1.0):g}",
            str(key.get("lane") or "high"),
            output.age(key.get("created_at")),
            "[red]revoked[/red]" if key.get("revoked_at") else "[green]valid[/green]",
        )
    output.console.print(table)


@app.command()
def revoke(key: Annotated[str, typer.Argument(metavar="KEY", help="Its id or name.")]) -> None:
    """Make a key worthless from now on."""
    with Client.from_environment() as client:
        client.revoke_key(key)
    output.notes.print(f"revoked {escape(key)}")
