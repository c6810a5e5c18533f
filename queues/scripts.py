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
    "control",
    "due",
    "fail_waiting",
    "finish",
    "first_byte",
    "full",
    "reap",
    "renew",
    "reorder",
    "reroute",
    "reserve",
    "restore_spent",
    "settle",
    "standing",
)
LAYOUT = "1"
"""Version of the keys. It changes when a process of the version before could not work with them any more."""
_SHARED = {
    "bounds": {"accept", "full", "reserve"},
    "claiming": {"claim", "finish"},
}
"""What several scripts share beside the prelude."""


class Scripts:
    """All scripts for one connection pool. Calling one runs EVALSHA and loads the script when Redis forgot it."""

    def __init__(self, redis: Client, queue: Queue):
        self._scripts: dict[str, AsyncScript] = {
            name: redis.register_script(source(name, queue)) for name in NAMES
        }

    async def __call__(self, name: str, *args: Any, client: Client | None = None) -> Any:
        """The answer; with a pipeline as `client` the call is only put into it."""
        return await self._scripts[name](args=args, client=client)


def source(name: str, queue: Queue) -> str:
    """Full text of a script: constants, prelude, what it shares, itself."""
    starts = ", ".join(f"{lane[0]} = {seconds:.17g}" for lane, seconds in sorted(queue.head_start.items()))
    constants = f"local P = '{queue.prefix}'\nlocal H = {{{starts}}}\nlocal LAYOUT = '{LAYOUT}'"
    shared = [part for part, users in _SHARED.items() if name in users]
    return "\n".join([constants, *map(_read, ["prelude", *shared, name])])


def _read(name: str) -> str:
    return resources.files("queues").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
