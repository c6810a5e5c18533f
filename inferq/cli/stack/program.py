"""The programs of a stack: how each is started, how long it may take to stop, and in which order that
happens.

It must not start anything itself.
"""

import sys
from dataclasses import dataclass

from inferq.config import Settings

# A margin over what a program allows itself, before it is killed.
_MARGIN_SECONDS = 5.0
_QUICK_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    argv: tuple[str, ...]
    stop_seconds: float
    title: str
    essential: bool = True
    """Whether the stack is of no use without it."""
    speaks: bool = False
    """Whether its readiness is asked for by `startup`; of the others it is known that they live."""


STOP_ORDER = ("watchers", "api", "node", "scheduler", "flower", "redis")
"""No new files, no new calls; then running jobs end or are handed back; then what recorded that."""


def _module(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


INIT = Program("init", _module("api", "--init"), _QUICK_SECONDS, "job store")


def redis(settings: Settings) -> Program | None:
    """The embedded server; None when the configuration names one that runs already."""
    if settings.queue.redis_url:
        return None
    return Program(
        "redis", _module("queues", "--embedded-redis"), _QUICK_SECONDS, "Redis (embedded)", speaks=True
    )


def services(settings: Settings) -> list[Program]:
    """Everything that needs Redis and the job store. They may start in any order, and do so at once."""
    drain = settings.processing.drain_timeout + _MARGIN_SECONDS
    programs = [
        Program("api", _module("api"), drain, "API", speaks=True),
        Program("scheduler", _module("queues"), _QUICK_SECONDS, "scheduler"),
        Program("watchers", _module("watchers"), _QUICK_SECONDS, "watched folders"),
        Program("node", _module("workers"), drain + _MARGIN_SECONDS, "node agent", speaks=True),
    ]
    if settings.monitoring.flower_enabled:
        programs.append(
            Program("flower", _module("queues", "--flower"), _QUICK_SECONDS, "Flower", essential=False)
        )
    return programs
