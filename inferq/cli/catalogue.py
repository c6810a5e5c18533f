"""`inferq models`: the group. Without a command it lists."""

from typing import Annotated

import typer

from inferq.cli import models_list, output
from inferq.cli.lazy import LazyGroup


class ModelCommands(LazyGroup):
    members = {
        "list": ("inferq.cli.models_list", "The models, their state and what waits for them."),
        "show": (
            "inferq.cli.models_show",
            "One model: what it takes, what was measured, what its engine says.",
        ),
        "scan": ("inferq.cli.models_scan", "Models that lie in a folder, and how to configure them."),
        "pull": ("inferq.cli.models_pull", "Bring a model here from a hub, a URL or a folder."),
    }


app = typer.Typer(
    cls=ModelCommands, add_completion=False, rich_markup_mode="rich", invoke_without_command=True
)


@app.callback()
def models(context: typer.Context, json: Annotated[bool, output.JSON] = False) -> None:
    """List and show models, find those that lie here, and bring more of them here.

    [bold]Examples[/bold]
      [cyan]inferq models --json | jq -r '.[].id'[/cyan]
      [cyan]inferq models pull org/name[/cyan]
      [cyan]inferq models scan --yaml[/cyan]
    """
    if context.invoked_subcommand is None:
        models_list.list_models(json=json)
