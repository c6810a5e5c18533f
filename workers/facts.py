"""What an engine says of its model in `/health`, as far as it can be shown: small, and true beyond this moment."""

from typing import Any

import orjson

MOST = 4096
"""Bytes of all facts as JSON."""
_PROCESS = frozenset(
    {"status", "pid", "model", "running", "served", "runs", "memory_bytes", "resident_bytes", "device_bytes"}
)
_PASSING = frozenset(
    {
        "batches",
        "pieces",
        "items",
        "made",
        "answered",
        "waiting",
        "steps",
        "sequences",
        "active",
        "speech_seconds",
        "controlnets_loaded",
    }
)
"""Counts that are old as soon as they are read."""


def facts_of(health: bytes) -> dict[str, Any]:
    """The facts in an answer of `/health`; none when it is no JSON object. Of too many the smallest are kept."""
    try:
        said = orjson.loads(health)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(said, dict):
        return {}
    left, facts = MOST, {}
    told = {
        name: value for name, value in said.items() if name not in _PROCESS | _PASSING and value is not None
    }
    for name, value in sorted(told.items(), key=lambda item: len(_json(item[1]))):
        left -= len(_json(name)) + len(_json(value)) + 2
        if left < 2:
            break
        facts[name] = value
    return facts


def _json(value: Any) -> bytes:
    return orjson.dumps(value)
