"""The form that a request demands of its answers. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from workers.engines.textgen.forms import Node, Repeat, Stack, Text, Until, Value
from workers.engines.textgen.tools import CLOSE, OPEN

if TYPE_CHECKING:
    from workers.engines.textgen.request import Ask, Tooling


def demanded(ask: Ask, thinks_until: str | None) -> list[Stack] | None:
    """The ways an answer may go; None for any. `thinks_until` is the tag that ends what the prompt has begun to think.

    1. A form of its own; 2. a call of a tool; 3. words, but calls as their tools' schemas have it; 4. anything.
    """
    thought = () if thinks_until is None else (Until(thinks_until.encode()),)
    if ask.form is not None:  # 1
        return [(ask.form, *thought)]
    tooling = ask.tooling
    if tooling.mode in ("required", "named"):  # 2
        return [(*call, Text(OPEN.encode()), *thought) for call in calls(tooling)]
    if tooling.mode == "auto" and tooling.strict:  # 3
        row: Stack = (Value(Node(calls(tooling))), Until(OPEN.encode(), may_end=True))
        return [(Repeat(row),) if tooling.several else row]
    return None  # 4


def calls(tooling: Tooling) -> list[Stack]:
    """What follows the opening tag of a call, one way per tool. Frames come last first."""
    tail = Text(f"}}\n{CLOSE}".encode())
    return [
        (tail, form, Text(f'\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '.encode()))
        for name, form in tooling.callable.items()
    ]
