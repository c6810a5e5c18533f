"""Waiting for something to become true, with a deadline. The only place of these tests that sleeps."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 60.0
"""Generous: the machine may be busy with other things."""
LOOK_EVERY = 0.05


def until(look: Callable[[], T], what: str, within: float = DEADLINE) -> T:
    """The first truthy answer of `look`."""
    deadline = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}; last seen: {seen!r}"
        time.sleep(LOOK_EVERY)
    return seen
