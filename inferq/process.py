"""What every process of ours does at its start: arguments, settings, logging, signals, one clear line on failure."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from inferq import errors
from inferq.config import Settings, load_settings


def parser(program: str, purpose: str) -> argparse.ArgumentParser:
    """A parser with the flags that all processes share."""
    arguments = argparse.ArgumentParser(prog=f"python -m {program}", description=purpose)
    arguments.add_argument(
        "--config", help="configuration file (default: $INFERQ_CONFIG or scheduler_config.yaml)"
    )
    arguments.add_argument("--home", help="folder of all state (default: $INFERQ_HOME or ./data)")
    return arguments


def configure_logging(settings: Settings) -> None:
    logging.basicConfig(
        level=logging.DEBUG if settings.deployment.debug_mode else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("asyncio", "kombu", "celery"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def fail(message: str, code: int = 1) -> int:
    """One clear line for the user; the exit code."""
    sys.stderr.write(f"error: {message}\n")
    return code


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Settings from the shared flags. Raises ConfigError."""
    return load_settings(arguments.config, home=arguments.home)


def run_until_signal(main: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> int:
    """Run `main(stopping)`; SIGTERM and SIGINT set `stopping`. An error of ours becomes one line and exit code 1."""

    async def body() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await main(stopping)

    try:
        asyncio.run(body())
    except errors.ConfigError as error:
        return fail(error.message, 2)
    except errors.InferqError as error:
        return fail(error.message)
    return 0


async def end_tasks(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until they have ended. Once is not enough: a client library may turn a cancel into its own error."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)
