"""Waiting for something that other processes do, without guessing how long it takes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], *, seconds: float = 15.0, what: str = "") -> T:
    """What `look` returns, as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not within {seconds} s: {what or look}"
        time.sleep(0.02)
    return found
