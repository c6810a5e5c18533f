"""The supervisor process, run by `inferq up` under the shim: ``python -m inferq.cli.stack URL PROGRAM``."""

import os
import sys
import time
from pathlib import Path

from rich.console import Console

from inferq import errors
from inferq.cli import exits
from inferq.cli.stack import demo_models, welcome
from inferq.cli.stack.board import Board
from inferq.cli.stack.requests import StopRequests
from inferq.cli.stack.startup import Startup
from inferq.cli.stack.supervisor import StopRequestedError, Supervisor
from inferq.config import Settings, load_settings


def main(url: str, program: str) -> int:
    requests = StopRequests()
    settings = load_settings()
    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    board = Board(Console(highlight=False))
    supervisor = Supervisor(board, requests, logs=logs, env=os.environ, cwd=Path.cwd())
    try:
        _serve(settings, supervisor, url, program)
    except StopRequestedError:
        return exits.OK
    except errors.InferqError as error:
        board.close()
        board.say(f"error: {error.message}", style="red")
        return exits.code_of(error)
    finally:
        board.close()
        board.say("stopping (Ctrl-C again: at once)", style="dim")
        supervisor.stop()
    return exits.OK


def _serve(settings: Settings, supervisor: Supervisor, url: str, program: str) -> None:
    """Until a stop is requested, which is raised."""
    began = time.monotonic()
    supervisor.board.open()
    startup = Startup(settings, supervisor, url=url)
    startup.run()
    supervisor.board.close()
    supervisor.board.print(
        welcome.render(
            settings,
            url=url,
            program=program,
            seconds=time.monotonic() - began,
            prompts=demo_models.known_prompts(settings),
            failed=list(startup.failed),
        )
    )
    while True:
        supervisor.pump()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
