"""Fields of a JSON body as a table: one row says a field's types, range and meaning.

The same row checks bodies and becomes the field's JSON Schema in the API documentation, so the two cannot disagree.
Fields without a row are left alone: an engine may know them, and refuses what it does not.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inferq import errors

STRING, NUMBER, INTEGER, BOOLEAN, ARRAY, OBJECT = "string", "number", "integer", "boolean", "array", "object"

_PYTHON: dict[str, tuple[type, ...]] = {
    STRING: (str,),
    NUMBER: (int, float),
    INTEGER: (int,),
    BOOLEAN: (bool,),
    ARRAY: (list,),
    OBJECT: (dict,),
}
_JSON_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`types` are JSON types; null means "not given". `check(value, path)` raises for what types and range
    cannot say."""

    types: tuple[str, ...]
    doc: str
    required: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[Any, str], object] | None = None
    schema: Mapping[str, Any] = field(default_factory=dict)
    accepted: frozenset[type] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "accepted", frozenset(t for name in self.types for t in _PYTHON[name]))

    def verify(self, value: Any, path: str) -> None:
        """Raise InvalidRequest naming `path` unless the value is legal."""
        if type(value) not in self.accepted:
            raise wrong_type(path, self.types, value)
        if self.choices and isinstance(value, str) and value not in self.choices:
            legal = ", ".join(f"'{choice}'" for choice in self.choices)
            raise errors.InvalidRequest(
                f"Invalid value for '{path}': {value!r}. Legal values: {legal}.", param=path
            )
        if self.low is not None and isinstance(value, int | float) and value < self.low:
            raise errors.InvalidRequest(
                f"Invalid '{path}': {value} is below the minimum of {self.low:g}.", param=path
            )
        if self.high is not None and isinstance(value, int | float) and value > self.high:
            raise errors.InvalidRequest(
                f"Invalid '{path}': {value} is above the maximum of {self.high:g}.", param=path
            )
        if self.check is not None:
            self.check(value, path)

    def json_schema(self) -> dict[str, Any]:
        made: dict[str, Any] = {"type": self.types[0] if len(self.types) == 1 else list(self.types)}
        made["description"] = self.doc
        if self.choices and self.types == (STRING,):
            made["enum"] = list(self.choices)
        if self.low is not None:
            made["minimum"] = self.low
        if self.high is not None:
            made["maximum"] = self.high
        return {**made, **self.schema}


Table = Mapping[str, Field]

_ELSEWHERE = {"idempotency_key": "It goes into the header `Idempotency-Key`."}


def verify(body: Mapping[str, Any], table: Table) -> None:
    """Raise InvalidRequest for the first field that is missing or wrong."""
    for name, row in table.items():
        if row.required and body.get(name) is None:
            raise errors.InvalidRequest(f"Missing required parameter: '{name}'.", param=name)
    for name, value in body.items():
        known = table.get(name)
        if known is not None and value is not None:
            known.verify(value, name)


def refuse_unknown(body: Mapping[str, Any], table: Table) -> None:
    """For bodies that nobody but us reads: a field without a row is a mistake of the caller."""
    for name in body:
        if name not in table:
            hint = _ELSEWHERE.get(name) or f"Legal here: {', '.join(table)}."
            raise errors.InvalidRequest(f"Unknown parameter: '{name}'. {hint}", param=name)


def wrong_type(path: str, types: tuple[str, ...], value: Any) -> errors.InvalidRequest:
    wanted = " or ".join(f"{'an' if name[0] in 'aio' else 'a'} {name}" for name in types)
    got = "null" if value is None else _JSON_NAMES[type(value)]
    return errors.InvalidRequest(
        f"Invalid type for '{path}': expected {wanted}, but got {got} instead.", param=path
    )


def object_schema(table: Table, *, open_ended: bool = False) -> dict[str, Any]:
    """The JSON Schema of a body that `verify` accepts."""
    made: dict[str, Any] = {
        "type": "object",
        "properties": {name: row.json_schema() for name, row in table.items()},
        "additionalProperties": open_ended,
    }
    required = [name for name, row in table.items() if row.required]
    if required:
        made["required"] = required
    return made


def same(body: Mapping[str, Any], *names: str) -> Any:
    """The value of a field with several names; None when it is not given. Raises InvalidRequest when they disagree."""
    given = {name: body[name] for name in names if body.get(name) is not None}
    if len(set(given.values())) > 1:
        shown = " and ".join(f"'{name}' is {value!r}" for name, value in given.items())
        raise errors.InvalidRequest(f"{shown}; give one.", param=next(reversed(given)))
    return next(iter(given.values()), None)


def number_of(value: Any) -> bool:
    """Whether a value, perhaps written as a text, is a finite number."""
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False
