"""The engine contract: what an engine has to say so that a replica can host it.

An engine is a program that serves a model over HTTP in OpenAI's shape. A plug-in registers an object with this
interface under the entry-point group ``inferq.engines``; its name there is the name used in the configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from inferq import errors

GROUP = "inferq.engines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start of an engine. `socket` is the unix socket it must listen on; `source` an absolute path or a
    hub id; `media` is the folder of the files that requests name."""

    model: str
    source: str
    socket: Path
    device: str
    slots: int
    python: Path
    media: Path = Path()
    args: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Command:
    """How to start an engine: its argument vector and what to add to the environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


class MediaForm(StrEnum):
    """How an engine wants the files of a request: as `file:` URLs below `Launch.media`, or inside the body."""

    PATH = "path"
    DATA = "data"


class Engine(Protocol):
    """A kind of engine. `health` answers 200 once the model is loaded; `endpoints` are paths below /v1."""

    health: str
    endpoints: frozenset[str]
    media: MediaForm

    def command(self, launch: Launch) -> Command:
        """The program to run for this launch. Pure: starts nothing, reads nothing."""
        ...


@cache
def find_engine(name: str) -> Engine:
    """The engine registered under a name. Raises ConfigError that lists the known ones."""
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        raise errors.ConfigError(
            f"no engine {name!r} is installed; known: {', '.join(sorted(known)) or 'none'}"
        )
    try:
        engine: Engine = known[name].load()
    except (ImportError, AttributeError) as error:
        raise errors.ConfigError(f"engine {name!r} cannot be loaded: {error}") from error
    return engine
