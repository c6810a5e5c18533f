"""Reading a request body field by field, and refusing what nobody read.

An engine reads each field it honours; `close()` then refuses every other field that has a value. So a
parameter can be unsupported but never ignored. Must not hold defaults of any endpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from workers.engines.failures import BadRequest, UnsupportedParameter

# Fields that change nothing about an answer, with the values that are harmless (None: any value).
NO_OPS: Mapping[str, Collection[Any] | None] = {
    "user": None,
    "metadata": None,
    "service_tier": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
    "store": (False,),
    "parallel_tool_calls": (True,),
}


class Fields:
    """One request body. Every getter marks its field as read and checks its type."""

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict):
            raise BadRequest("The request body must be a JSON object.", code="invalid_type")
        self._body: dict[str, Any] = body
        self._read: set[str] = set()

    def raw(self, name: str) -> Any:
        self._read.add(name)
        return self._body.get(name)

    def given(self, name: str) -> bool:
        return self._body.get(name) is not None

    def text(self, name: str) -> str | None:
        value = self.raw(name)
        if value is not None and not isinstance(value, str):
            raise wrong_type(name, "a string")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise wrong_type(name, "a boolean")
        return value

    def integer(self, name: str, low: int | None = None, high: int | None = None) -> int | None:
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, "an integer")
        check_range(name, value, low, high)
        return value

    def number(self, name: str, low: float | None = None, high: float | None = None) -> float | None:
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_type(name, "a number")
        check_range(name, value, low, high)
        return float(value)

    def choice(self, name: str, allowed: Collection[str], default: str) -> str:
        value = self.text(name)
        if value is None:
            return default
        if value not in allowed:
            raise BadRequest(f"'{name}' must be one of {', '.join(sorted(allowed))}.", param=name)
        return value

    def mapping(self, name: str) -> dict[str, Any] | None:
        value = self.raw(name)
        if value is not None and not isinstance(value, dict):
            raise wrong_type(name, "an object")
        return value

    def listing(self, name: str) -> list[Any] | None:
        value = self.raw(name)
        if value is not None and not isinstance(value, list):
            raise wrong_type(name, "an array")
        return value

    def only(self, name: str, harmless: Collection[Any], reason: str) -> None:
        """Accept a field at the values that ask for nothing, refuse any other."""
        value = self.raw(name)
        if value is not None and not any(value == each and type(value) is type(each) for each in harmless):
            raise UnsupportedParameter(name, reason)

    def close(self) -> None:
        """Refuse the fields that nobody read and that would have asked for something."""
        for name, value in self._body.items():
            if name in self._read or value is None or harmless_no_op(name, value):
                continue
            raise UnsupportedParameter(name)


def harmless_no_op(name: str, value: Any) -> bool:
    if name not in NO_OPS:
        return False
    allowed = NO_OPS[name]
    return allowed is None or value in allowed


def wrong_type(name: str, wanted: str) -> BadRequest:
    return BadRequest(f"Invalid type for '{name}': expected {wanted}.", param=name, code="invalid_type")


def check_range(name: str, value: float, low: float | None, high: float | None) -> None:
    if value != value or (low is not None and value < low) or (high is not None and value > high):
        bounds = f"between {low} and {high}" if high is not None else f"at least {low}"
        raise BadRequest(f"Invalid value for '{name}': {value} is not {bounds}.", param=name)
