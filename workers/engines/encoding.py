"""JSON and server-sent events as bytes. Owns the wire form only; knows no endpoint."""

from __future__ import annotations

import importlib
import json
from typing import Any

DONE = b"data: [DONE]\n\n"


def fast_json() -> Any:
    """orjson, which every engine environment should have; None where a bare Python runs an engine."""
    try:
        return importlib.import_module("orjson")
    except ImportError:
        return None


orjson = fast_json()


def dumps(value: Any) -> bytes:
    if orjson is not None:
        encoded: bytes = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
        return encoded
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def loads(raw: bytes) -> Any:
    """Raises ValueError for what is not JSON, and for what is nested too deep to be read."""
    if orjson is not None:
        return orjson.loads(raw)
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def numbers(vector: Any) -> Any:
    """A numpy vector in the form that `dumps` writes fastest."""
    return vector if orjson is not None else vector.tolist()


def event(value: Any) -> bytes:
    """One whole SSE event. JSON never holds a raw newline, so one data line is enough."""
    return b"data: " + dumps(value) + b"\n\n"
