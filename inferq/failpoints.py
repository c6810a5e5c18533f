"""Named places between two steps at which a test lets a process die, stop or fail. Outside of tests they do nothing.

``INFERQ_FAILPOINTS=recorder.committed:kill:3,intake.reserved:raise`` arms two of them: `kill` ends the process as
kill -9 does, `stop` freezes it until somebody sends SIGCONT, `raise` raises an error that nobody foresaw. The number
says at which time the place is reached (first by default); `raise` goes on raising from then on. Nothing here may be
needed for the work: this module knows nobody.
"""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLE = "INFERQ_FAILPOINTS"
ACTIONS = ("kill", "stop", "raise")


class Reached(Exception):
    """What the action `raise` raises. Not one of ours on purpose: it stands for a defect."""


@dataclass(slots=True)
class _Armed:
    action: str
    left: int


def parse(text: str) -> dict[str, _Armed]:
    """The armed places by name. Raises ValueError for what is no ``name:action[:nth]``."""
    armed = {}
    for item in filter(None, text.split(",")):
        name, _, rest = item.partition(":")
        action, _, nth = rest.partition(":")
        if action not in ACTIONS or (nth and not (nth.isdigit() and int(nth))):
            raise ValueError(f"{VARIABLE}: {item!r} is not NAME:{'|'.join(ACTIONS)}[:NTH]")
        armed[name] = _Armed(action, int(nth or 1))
    return armed


def _from(environ: Mapping[str, str]) -> dict[str, _Armed] | None:
    return parse(environ[VARIABLE]) if environ.get(VARIABLE) else None


_armed = _from(os.environ)


def reach(name: str) -> None:
    """This process is at the place `name` now."""
    if _armed is not None:
        _act(name, _armed.get(name))


def _act(name: str, place: _Armed | None) -> None:
    if place is None:
        return
    place.left -= 1
    if place.left > 0 or (place.left < 0 and place.action != "raise"):
        return
    sys.stderr.write(f"failpoint {name}: {place.action}\n")
    sys.stderr.flush()
    if place.action == "raise":
        raise Reached(name)
    os.kill(os.getpid(), signal.SIGKILL if place.action == "kill" else signal.SIGSTOP)
