"""The tour's order and its narration. What each stop does is in `calls` and `durability`."""

import time
from collections.abc import Callable

from rich.markup import escape
from rich.padding import Padding

from inferq import errors
from inferq.cli import output
from inferq.cli.tour import calls, durability
from inferq.cli.tour.stop import NotHeldError
from inferq.client import Client

Stop = tuple[str, str, Callable[[Client], str]]

STOPS: tuple[Stop, ...] = (
    (
        "A chat completion",
        "The OpenAI call you know. It waits on the open connection while the job goes through the queue.",
        calls.chat,
    ),
    ("A stream", "The same with stream: true. Tokens are passed on as the engine makes them.", calls.stream),
    ("A tool call", "The model is given a function and asks for it to be called.", calls.tool_call),
    ("Embeddings", "Another model, another engine, the same door.", calls.embeddings),
    (
        "Lanes",
        "A burst of low jobs fills the queue; then one high job comes. It does not wait behind them.",
        durability.lanes,
    ),
    (
        "Kill -9",
        "Durable jobs run; then their replica is killed as hard as it can be. Every job must still end well.",
        durability.survive_a_kill,
    ),
)


def run() -> bool:
    """Whether everything held."""
    began = time.monotonic()
    with Client.from_environment() as client:
        output.console.print(f"[bold]A tour of inferq[/bold] at {client.url}")
        calls.require_demo_models(client)
        results = [_visit(client, number, *stop) for number, stop in enumerate(STOPS, 1)]
    output.console.print()
    if all(results):
        taken = output.span(time.monotonic() - began)
        output.console.print(f"[bold green]Everything held.[/bold green] [dim]{taken}[/dim]")
    else:
        missed = ", ".join(stop[0] for stop, held in zip(STOPS, results, strict=True) if not held)
        output.console.print(f"[bold red]Not everything held:[/bold red] {missed}")
    return all(results)


def _visit(client: Client, number: int, title: str, story: str, visit: Callable[[Client], str]) -> bool:
    output.console.print(f"\n[bold cyan]{number}. {title}[/bold cyan]")
    output.console.print(Padding(f"[dim]{story}[/dim]", (0, 0, 0, 3), expand=False))
    try:
        summary = visit(client)
    except (NotHeldError, errors.InferqError) as error:
        output.console.print(Padding(f"[red]✗ {escape(str(error))}[/red]", (0, 0, 0, 3), expand=False))
        return False
    output.console.print(Padding(f"[green]✓[/green] {escape(summary)}", (0, 0, 0, 3), expand=False))
    return True
