"""`python -m api`: the HTTP process, and `--init` for what must be there before it starts.

Failures that a person can mend are one line on standard error. Exit codes: 0 done or asked to stop, 1 something
that is needed is not usable (port, disk, database), 2 the command line or the configuration is wrong.
"""

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

import uvloop

from api.server import initialise, listen, serve
from inferq import errors, process
from inferq.config import Settings, load_settings


def main(argv: Sequence[str] | None = None) -> int:
    parser = process.parser("api", "The HTTP API: accepts, awaits, streams and queries jobs.")
    parser.add_argument(
        "--init", action="store_true", help="prepare the database and the admin key, then end"
    )
    parser.add_argument("--host", help="address to listen on (api.host)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for a free one (api.port)")
    arguments = parser.parse_args(argv)
    try:
        settings = load_settings(arguments.config, home=arguments.home, overrides=_overrides(arguments))
        return _initialise(settings) if arguments.init else _serve(settings)
    except errors.InferqError as error:
        return process.fail(_one_line(error.message), 2 if isinstance(error, errors.ConfigError) else 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return process.fail(f"{where}{error.strerror or error}")


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {"host": arguments.host, "port": arguments.port}
    return {"api": {name: value for name, value in given.items() if value is not None}}


def _initialise(settings: Settings) -> int:
    key = asyncio.run(initialise(settings))
    file = settings.home / "admin.key"
    if key is None:
        sys.stdout.write(f"the database is ready; the admin key is in {file}\n")
    else:
        sys.stdout.write(f"the database is ready; the new admin key, also in {file}:\n{key}\n")
    return 0


def _serve(settings: Settings) -> int:
    process.configure_logging(settings)
    # Both tell of every step they take, which says nothing about ours.
    for noisy in ("alembic", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    api = settings.api
    try:
        sock = listen(api.host, api.port)
    except OSError as error:
        reason = error.strerror or str(error)
        return process.fail(f"cannot listen on {api.host}:{api.port}: {reason}; see --host and --port")
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with contextlib.closing(sock), contextlib.suppress(KeyboardInterrupt), runner:
        runner.run(serve(settings, sock))
    return 0


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
