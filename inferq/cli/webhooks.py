"""`inferq webhooks`: messages about the ends of jobs."""

import time
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
    help="Messages about the ends of jobs: list, send again, test, the secret.",
)

_STYLES = {"delivered": "green", "given_up": "red", "waiting": "yellow"}
_PATIENCE_S, _LOOK_EVERY_S = 30.0, 0.3


@app.command("list")
def list_deliveries(
    job: Annotated[str, typer.Option(help="Only messages about this job or group.")] = "",
    state: Annotated[str, typer.Option(help="waiting, delivered or given_up.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="At most so many.")] = 50,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Show webhook messages, newest first.

    [bold]Examples[/bold]
      [cyan]inferq webhooks list --state given_up[/cyan]
      [cyan]inferq webhooks list --job 01a200cb-8f9d-71df-a543-ef3e67b7857c --json[/cyan]
    """
    with Client.from_environment() as client:
        page = client.deliveries(job=job, state=state, limit=str(limit))
    if json:
        output.show_json(page)
        return
    table = output.table("ID", "TYPE", "SUBJECT", "STATE", ">TRIES", "NEXT", "URL", "LAST ERROR")
    for each in page["data"]:
        table.add_row(
            str(each["id"]),
            str(each["type"]),
            str(each["subject"]),
            _state(each),
            str(each["attempts"]),
            f"in {output.span(each['next_at'] - time.time())}" if each["next_at"] else "-",
            escape(str(each["url"])),
            escape(each["last_error"] or "-"),
        )
    output.console.print(table)


@app.command()
def retry(
    delivery: Annotated[str, typer.Argument(metavar="ID", help="Id of the message.")],
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Send a message again now, whatever became of it.

    [bold]Example[/bold]
      [cyan]inferq webhooks retry 01a200cb-8f9d-71df-a543-ef3e67b7857c[/cyan]
    """
    with Client.from_environment() as client:
        again = client.retry_delivery(delivery)
    if json:
        output.show_json(again)
        return
    output.notes.print(f"{escape(delivery)} is sent again")


@app.command()
def test(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the message goes.")],
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Send a signed test message and tell how its first try ended.

    [bold]Example[/bold]
      [cyan]inferq webhooks test https://example.com/inferq[/cyan]
    """
    with Client.from_environment() as client:
        made = client.test_webhook(url)
        deadline = time.monotonic() + _PATIENCE_S
        while made["state"] == "waiting" and not made["last_error"] and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
            made = client.delivery(made["id"])
    if json:
        output.show_json(made)
    else:
        output.console.print(f"{_state(made)}  {escape(made['last_error'] or '')}".rstrip())
    if made["state"] != "delivered":
        raise errors.Unavailable(
            f"the message has not arrived: {made['last_error'] or 'the scheduler is away'}"
        )


@app.command()
def secret(json: Annotated[bool, output.JSON] = False) -> None:
    """Print the secret that receivers check signatures with. Needs an admin key.

    [bold]Example[/bold]
      [cyan]export OPENAI_WEBHOOK_SECRET="$(inferq webhooks secret)"[/cyan]
    """
    with Client.from_environment() as client:
        found = client.webhook_secret()
    if json:
        output.show_json({"secret": found})
    else:
        print(found)


def _state(delivery: dict[str, Any]) -> str:
    name = str(delivery["state"])
    return f"[{_STYLES.get(name, 'dim')}]{name}[/]"
