"""Makes text and JSON from outside fit for both databases. It changes nothing that both can hold."""

import json
from typing import Any


def clean(text: str) -> str:
    """`text` without what PostgreSQL cannot hold: NUL, and lone surrogates (from undecodable file names)."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def clean_or_none(text: str | None) -> str | None:
    return None if text is None else clean(text)


def dump_json(value: Any) -> str:
    """JSON as ASCII text. NaN and the infinities, which JSON has not and PostgreSQL refuses, become null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
        return json.dumps(finite, separators=(",", ":"))
