"""The entry point: the table of commands, and the boundary where an error becomes a message and a code."""

import json
import os
import sys
from typing import Annotated

import typer

from inferq import __version__, errors
from inferq.cli import exits
from inferq.cli.lazy import LazyGroup


class Commands(LazyGroup):
    members = {
        "up": ("inferq.cli.up", "Start everything on this machine and keep it running."),
        "submit": ("inferq.cli.submit", "Send a prompt or a job file, and wait for the answer."),
        "jobs": ("inferq.cli.jobs", "List, show, watch, cancel and retry jobs."),
        "dead": ("inferq.cli.dead", "Jobs that failed for good: why, run them again, purge them."),
        "groups": ("inferq.cli.groups", "Create, list, show and cancel groups of jobs."),
        "schedules": (
            "inferq.cli.schedules",
            "Jobs that come again: list, show, create, edit, pause, resume, delete.",
        ),
        "models": ("inferq.cli.catalogue", "The models: list, show, find those that lie here, pull more."),
        "queues": ("inferq.cli.queues", "What waits and runs; pause, resume and drain."),
        "status": ("inferq.cli.status", "Replicas, nodes, queues and the stores behind them."),
        "keys": ("inferq.cli.keys", "Create, list and revoke API keys."),
        "webhooks": (
            "inferq.cli.webhooks",
            "Messages about the ends of jobs: list, send again, test, the secret.",
        ),
        "config": ("inferq.cli.config", "Check and show the configuration, print its schema."),
        "doctor": ("inferq.cli.doctor", "Look for what would keep inferq from working here."),
        "demo": ("inferq.cli.demo", "Build the demo models, and a guided tour of a running stack."),
        "version": ("inferq.cli.version", "Print the version."),
    }


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=exits.HELP,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Schedule AI-model jobs: send work, see it wait and run, keep the stack running.

    Begin with [cyan]inferq up[/cyan], then in another terminal:
      [cyan]inferq submit "Hello!"[/cyan]
      [cyan]inferq submit examples/chat.json --async[/cyan]
      [cyan]inferq jobs watch[/cyan]

    INFERQ_URL names the server: by default the one started for INFERQ_HOME, else
    http://127.0.0.1:9000. INFERQ_API_KEY holds the key: by default the admin key
    in INFERQ_HOME.
    """


def main() -> None:
    """Run the command line. The only place where an error turns into text for people."""
    try:
        app()
    except errors.InferqError as error:
        _explain(error)
        sys.exit(exits.code_of(error))


def _explain(error: errors.InferqError) -> None:
    if "--json" in sys.argv:
        shown = {"code": error.code, "message": error.message, "param": error.param}
        print(json.dumps({"error": shown}, ensure_ascii=False), file=sys.stderr)
        return
    again = f" (try again in {error.retry_after:.0f} s)" if error.retry_after else ""
    label = "\033[1;31merror\033[0m" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else "error"
    print(f"{label}: {error.message}{again}", file=sys.stderr)
