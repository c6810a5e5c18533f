"""The Lua scripts: read from the package, completed with this installation's constants, called by name.

Nobody else calls EVAL. A script's keys and arguments stand at its head.
"""

import re
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
    "owe",
    "reap",
    "renew",
    "reorder",
    "reroute",
    "reserve",
    "restore_spent",
    "room",
    "settle",
    "standing",
)
LAYOUT = "1"
"""Version of the keys. It changes when a process of the version before could not work with them any more."""
_SHARED = ("prelude", "places", "bounds", "claiming")
"""Files of pieces, parted by empty lines, in the order in which they need each other."""
_NAMES = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)
_STATEMENTS = re.compile(r"^if ", re.MULTILINE)
_NO_CODE = re.compile(r"--.*|'[^'\n]*'")


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
    """Full text of a script: constants, the shared pieces that it uses, itself."""
    return complete(_read(name), queue)


def complete(script: str, queue: Queue) -> str:
    """The same of a script that is no part of the package.

    Redis makes every function of a script anew at each call, so what is not used is left out. A piece stands before
    those that use it; one that does something by itself always stays.
    """
    starts = ", ".join(f"{lane[0]} = {seconds:.17g}" for lane, seconds in sorted(queue.head_start.items()))
    constants = (
        f"local P, LAYOUT = '{queue.prefix}', '{layout_of(queue)}'\n"
        f"local H = {{{starts}}}\n"
        f"local FAIR, SHORTEST = {_lua(queue.policy == 'fair')}, {_lua(queue.policy == 'min_min')}"
    )
    used, words = [script], _words(script)
    for piece in reversed("\n\n".join(map(_read, _SHARED)).split("\n\n")):
        if _STATEMENTS.search(piece) or words & set(_NAMES.findall(piece)):
            used.append(piece)
            words |= _words(piece)
    return "\n".join([constants, *reversed(used)])


def _lua(true: bool) -> str:
    return "true" if true else "false"


def layout_of(queue: Queue) -> str:
    """The version of the keys that these settings ask for. Scores of one order mean nothing in another."""
    return LAYOUT if queue.policy == "fair" else f"{LAYOUT}-{queue.policy}"


def _words(lua: str) -> set[str]:
    """All names in a text, also those of fields; comments and strings aside."""
    return set(re.findall(r"\w+", _NO_CODE.sub("", lua)))


def _read(name: str) -> str:
    return resources.files("queues").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
