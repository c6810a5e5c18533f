"""A command group that imports its members when they are called, so that each command loads what it needs.

The table of commands lives in `main`; this module must not know any of them.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class LazyGroup(TyperGroup):
    """Shows its members by their summaries; a member's module is imported when its command line is parsed."""

    members: Mapping[str, tuple[str, str]] = {}
    """Name → (module that has `app`, summary)."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, summary) in self.members.items():
            self.add_command(TyperCommand(name, help=summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name in self.members:
            module = importlib.import_module(self.members[name][0])
            command = get_command(module.app)
        return name, command, rest
