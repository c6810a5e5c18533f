"""The Lua scripts: read from the package, completed with this installation's constants, called by name.

Nobody else calls EVAL. A script's keys and arguments stand at its head.
"""

from importlib import resources
from typing import Any

from redis.commands.core import AsyncScript

from inferq.config.sections import Queue
from queues.connection import Client

NAMES = (
    "accept",
    "cache_get",
    "cache_put",
    "cancel",
    "claim",
    "fail_waiting",
    "finish",
    "first_byte",
    "full",
    "reap",
    "renew",
    "reserve",
    "settle",
    "standing",
)
_BOUNDED = {"accept", "full", "reserve"}


class Scripts:
    """All scripts for one connection pool. Calling one runs EVALSHA and loads the script when Redis forgot it."""

    def __init__(self, redis: Client, queue: Queue):
        self._scripts: dict[str, AsyncScript] = {
            name: redis.register_script(source(name, queue)) for name in NAMES
        }

    async def __call__(self, name: str, *args: Any) -> Any:
        return await self._scripts[name](args=args)


def source(name: str, queue: Queue) -> str:
    """Full text of a script: constants, prelude, what it shares, itself."""
    starts = ", ".join(f"{lane[0]} = {seconds:.17g}" for lane, seconds in sorted(queue.head_start.items()))
    parts = [f"local P = '{queue.prefix}'\nlocal H = {{{starts}}}", _read("prelude")]
    if name in _BOUNDED:
        parts.append(_read("bounds"))
    return "\n".join([*parts, _read(name)])


def _read(name: str) -> str:
    return resources.files("queues").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
