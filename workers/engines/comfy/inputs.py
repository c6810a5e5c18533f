"""The inputs of a node class as ComfyUI's `/object_info` describes them, and the check of one value.

A value is always a plain one (text, number, boolean), or a list of such where the node takes one. A caller's value
can so never become a link to another node. Must not know requests or graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.engines.failures import BadRequest
from workers.engines.fields import check_range, wrong_type

INT, FLOAT, STRING, BOOLEAN, COMBO, ANY = "INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "*"
MOST_TEXT = 32_000  # characters, as OpenAI bounds a prompt
MOST_ITEMS = 1000
MOST_NAMED = 50  # legal values that an error names


@dataclass(frozen=True)
class Input:
    """One input. `choices` is None where any value of the type is legal; `step` is 0 where none is declared."""

    kind: str = ANY
    low: float | None = None
    high: float | None = None
    step: float = 0
    choices: tuple[Any, ...] | None = None

    def check(self, value: Any, param: str) -> Any:
        """The value as it is sent. Raises BadRequest that names `param`."""
        if self.choices is not None:
            return self._choice(value, param)
        if self.kind in (INT, FLOAT):
            return self._number(value, param)
        if self.kind == BOOLEAN and not isinstance(value, bool):
            raise wrong_type(param, "a boolean")
        if self.kind in (STRING, COMBO) and not isinstance(value, str):
            raise wrong_type(param, "a string")
        return plain(value, param)

    def _choice(self, value: Any, param: str) -> Any:
        for each in self.choices or ():
            if each == value and isinstance(each, bool) == isinstance(value, bool):
                return each
        known = ", ".join(str(each) for each in (self.choices or ())[:MOST_NAMED]) or "none"
        raise BadRequest(f"Invalid value for '{param}'. Legal here: {known}.", param=param)

    def _number(self, value: Any, param: str) -> float:
        number = isinstance(value, int) or (self.kind == FLOAT and isinstance(value, float))
        if isinstance(value, bool) or not number:
            raise wrong_type(param, "an integer" if self.kind == INT else "a number")
        check_range(param, value, self.low, self.high)
        return float(value) if self.kind == FLOAT else int(value)


def plain(value: Any, param: str) -> Any:
    """A text, number or boolean; a list of such is wrapped, for a bare list is a link in a graph."""
    if isinstance(value, list):
        if len(value) > MOST_ITEMS or any(isinstance(each, list | dict) for each in value):
            raise wrong_type(param, f"a list of up to {MOST_ITEMS} plain values")
        return {"__value__": [plain(each, param) for each in value]}
    if not isinstance(value, str | int | float):
        raise wrong_type(param, "a string, a number or a boolean")
    if isinstance(value, str) and len(value) > MOST_TEXT:
        raise BadRequest(f"'{param}' is longer than {MOST_TEXT} characters.", param=param)
    return value


def inputs_of(node_class: Mapping[str, Any]) -> dict[str, Input]:
    """The inputs of one entry of `/object_info`, by name. Hidden ones are the server's own."""
    groups = node_class.get("input") or {}
    return {
        name: input_of(declared)
        for group in ("required", "optional")
        for name, declared in (groups.get(group) or {}).items()
    }


def input_of(declared: Sequence[Any]) -> Input:
    """`[type, {settings}]`; the type of a choice is the list of its values, or `COMBO` with them in its settings."""
    kind = declared[0] if declared else ANY
    settings = declared[1] if len(declared) > 1 and isinstance(declared[1], dict) else {}
    if isinstance(kind, list) or kind == COMBO:
        values = kind if isinstance(kind, list) else settings.get("options")
        # What is uploaded, or fetched by the browser, is in no list yet.
        dynamic = any(
            settings.get(name) for name in ("image_upload", "remote", "remote_combo", "multiselect")
        )
        return Input(COMBO, choices=None if dynamic or values is None else tuple(values))
    return Input(str(kind), settings.get("min"), settings.get("max"), settings.get("step") or 0)
