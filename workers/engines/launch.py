"""The command line every engine understands, as one frozen value, and the reading of its options."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Launch:
    """How this engine process was asked to run."""

    model: str
    served_name: str
    uds: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    slots: int = 1
    device: str = "cpu"
    grace_s: float = 10.0
    media: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


class Options:
    """Reads `--options`, and names those that the engine does not know."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = dict(values)

    def take(self, name: str, default: Any) -> Any:
        value = self._values.pop(name, default)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not type(default):
            raise ValueError(f"option {name!r} must be a {type(default).__name__}")
        return value

    def given(self, name: str) -> bool:
        return name in self._values

    def close(self) -> None:
        if self._values:
            raise ValueError(f"unknown options: {', '.join(sorted(self._values))}")


def parse(argv: Sequence[str] | None, program: str) -> Launch:
    parser = argparse.ArgumentParser(prog=program, description="An inferq engine server.")
    parser.add_argument("--model", required=True, help="folder or id of the model")
    parser.add_argument("--served-name", help="the public name; default: --model")
    parser.add_argument("--uds", help="unix socket to listen on")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="TCP port, for use by hand")
    parser.add_argument("--slots", type=int, default=1, help="requests that run at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds a stop waits for running requests")
    parser.add_argument("--media", help="the only folder from which input files are read")
    parser.add_argument("--options", type=json.loads, default={}, help="engine options, a JSON object")
    given = parser.parse_args(argv)
    if (given.uds is None) == (given.port is None):
        parser.error("give exactly one of --uds and --port")
    if not isinstance(given.options, dict):
        parser.error("--options must be a JSON object")
    if given.slots < 1:
        parser.error("--slots must be at least 1")
    return Launch(
        model=given.model,
        served_name=given.served_name or given.model,
        uds=given.uds,
        host=given.host,
        port=given.port,
        slots=given.slots,
        device=given.device,
        grace_s=given.grace,
        media=given.media,
        options=given.options,
    )


def checked_url(url: str, example: str) -> str:
    """A server's address without a slash at its end. Raises ValueError for one that is none, or holds a secret."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"option 'url' must be an http or https address, such as {example}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("option 'url' must hold no user, password, query or fragment")
    return url.rstrip("/")
