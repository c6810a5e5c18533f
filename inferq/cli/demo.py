"""`inferq demo`: build the demo models by hand, and the guided tour."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from inferq.cli.stack import demo_models, launch
from inferq.cli.tour import guide
from inferq.config import load_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Build the demo models, and a guided tour of a running stack.",
)


@app.command()
def build(
    home: Annotated[
        Path | None, typer.Option(help="Folder of all state. Default: INFERQ_HOME, else data.")
    ] = None,
) -> None:
    """Make the demo models in the home's models folder. Those that are complete are left alone."""
    settings = load_settings(home=home)
    done = subprocess.run(demo_models.builder(settings).argv, cwd=launch.code_folder(), check=False)
    sys.exit(done.returncode)


@app.command()
def tour() -> None:
    """Send chats, tool calls and embeddings to the running stack, kill a replica meanwhile, see that nothing is lost.

    It ends with code 0 only if everything held. Start the stack first: [cyan]inferq up[/cyan].
    """
    sys.exit(0 if guide.run() else 1)
