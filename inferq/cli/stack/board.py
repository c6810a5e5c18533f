"""What `inferq up` shows while it starts and runs: a live board in a terminal, plain lines elsewhere.

A terminal that went away must not end the stack, so writing never raises.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_MARKS = {"ready": "[green]✓[/green]", "failed": "[red]✗[/red]", "waiting": "[dim]·[/dim]"}


@dataclass
class Row:
    title: str
    state: str = "waiting"
    detail: str = ""
    began: float = field(default_factory=time.monotonic)
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))


class Board:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, Row] = {}
        self._live: Live | None = None
        self._open = False

    def open(self) -> None:
        self._open = True
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=8, transient=False
            )
            self._write(self._live.start)

    def close(self) -> None:
        """The rows stay as they are; from now on only `say` and `print` are seen."""
        self._open = False
        if self._live is not None:
            self._write(self._live.stop)
            self._live = None

    def expect(self, name: str, title: str) -> None:
        self._rows[name] = Row(title)

    def set(self, name: str, state: str, detail: str = "") -> None:
        """States: waiting, starting, ready, failed. The detail of a ready row is the time it took."""
        row = self._rows.setdefault(name, Row(name))
        changed = row.state != state
        if changed and state == "starting":
            row.began = time.monotonic()
        if changed and state == "ready" and not detail:
            detail = f"{time.monotonic() - row.began:.1f} s"
        if row.state == "ready" and state == "ready":
            return
        row.state, row.detail = state, detail
        if changed and self._open and self._live is None:
            self.say(f"{row.title}: {state}" + (f" ({detail})" if detail else ""))

    def say(self, text: str, *, style: str = "") -> None:
        """One line of plain text; in a terminal it scrolls above the board."""
        self._write(lambda: self._console.print(Text(text, style=style), soft_wrap=True))

    def print(self, renderable: RenderableType) -> None:
        self._write(lambda: self._console.print(renderable, soft_wrap=True))

    def _render(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", style="dim")
        for row in self._rows.values():
            detail = row.detail
            if row.state == "starting":
                detail = f"{time.monotonic() - row.began:.0f} s  {detail}"
            mark: RenderableType = row.spinner if row.state == "starting" else _MARKS[row.state]
            grid.add_row(mark, escape(row.title), escape(detail))
        return grid

    def _write(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError:
            self._console.quiet = True
