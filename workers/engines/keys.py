"""Keys of other servers: read from the environment, and kept out of what callers are told."""

from __future__ import annotations

import os


def read_key(variable: str, option: str) -> str:
    """The key in an environment variable. Raises ValueError, which never shows it."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"the environment variable {variable} (option '{option}') is not set, or empty")
    if not key.isascii() or not key.isprintable():
        raise ValueError(f"the environment variable {variable} (option '{option}') is no line of plain text")
    return key


def without_key(text: str, key: str) -> str:
    """The text with the key made unreadable."""
    return text.replace(key, "***") if key else text
