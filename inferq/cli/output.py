"""How the command line shows things: JSON for programs, tables for people, times and states in one manner.

It must not fetch anything.
"""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# A pipe has no width; tables there must not cut what a program may want to read.
_PIPE_WIDTH = 10_000

console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
notes = Console(stderr=True, highlight=False)

JSON = typer.Option("--json", help="Print JSON, the same in every release, instead of text.")

_STATES_BY_STYLE = {
    "yellow": ("queued", "scheduled"),
    "cyan": ("running", "starting"),
    "green": ("succeeded", "ready", "ok"),
    "red": ("failed", "expired", "lost", "away"),
    "magenta": ("cancelled", "stopping"),
    "dim": ("stopped",),
}
_STATE_STYLES = {name: style for style, names in _STATES_BY_STYLE.items() for name in names}


def show_json(value: Any) -> None:
    """Pretty in a terminal, one line in a pipe, so that lists of results can be piped on."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, indent=indent, ensure_ascii=False), flush=True)


def table(*columns: str) -> Table:
    """A borderless table; columns that start with ``>`` are numbers."""
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=True)
    return made


def state(name: str) -> str:
    style = _STATE_STYLES.get(name)
    return f"[{style}]{name}[/{style}]" if style else name


def stopped(pause: Mapping[str, Any]) -> str:
    """One line about something that is paused or drained."""
    why = f": {escape(pause['reason'])}" if pause["reason"] else ""
    word = "drained" if pause["action"] == "drain" else "paused"
    what = f"{pause['kind']} {escape(pause['name'])}"
    return f"[yellow]{word}[/yellow] {what} ({age(pause['created_at'])}){why}"


def age(moment: float | None) -> str:
    return "-" if moment is None else f"{span(time.time() - moment)} ago"


def ahead(moment: float) -> str:
    return f"in {span(moment - time.time())}"


def clock(moment: float | None) -> str:
    """The time of day here, and how long ago or ahead that is."""
    if moment is None:
        return "-"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(moment))
    return f"{stamp} ({ahead(moment) if moment > time.time() else age(moment)})"


def span(seconds: float | None) -> str:
    """``0.4 s``, ``12 s``, ``3 m 20 s``, ``2 h 5 m``, ``3 d``."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} m"
    return f"{whole // 86400} d"


def size(count: float | None) -> str:
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def count(number: float | None) -> str:
    """``950``, ``12.3 K``, ``7.6 M``, ``1.1 B``."""
    if number is None:
        return "-"
    for unit in ("", " K", " M"):
        if number < 1000:
            return f"{number:.1f}{unit}" if unit else f"{number:.0f}"
        number /= 1000
    return f"{number:.1f} B"
