"""Durations and byte sizes as people write them: ``30s``, ``5m``, ``8GiB``."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "b": 1,
    "": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")


def _quantity(value: Any, units: dict[str, float] | dict[str, int], example: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"write it like {example}")
    if not isinstance(value, str):
        return float(value)
    match = _QUANTITY.fullmatch(value)
    unit = match.group(2).lower() if match else None
    if match is None or (unit not in units and unit != ""):
        raise ValueError(
            f"cannot read {value!r}; write it like {example} (units: {', '.join(u for u in units if u)})"
        )
    return float(match.group(1)) * units.get(unit or "", 1)


def parse_duration(value: Any) -> float:
    """Seconds for ``250ms``, ``30s``, ``5m``, ``2h``, ``7d``; a bare number is seconds."""
    return _quantity(value, _SECONDS, "30s")


def parse_size(value: Any) -> int:
    """Bytes for ``8GiB`` (powers of 1024) or ``8GB`` (powers of 1000); a bare number is bytes."""
    return int(_quantity(value, _BYTES, "8GiB"))


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": ["string", "number"], "examples": ["30s", "5m"], "description": "a duration"}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {"type": ["string", "integer"], "examples": ["8GiB", "64MB"], "description": "a size in bytes"}
    ),
]
