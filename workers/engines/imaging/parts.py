"""Running a batch that may be too large for the device: in halves, and halves of halves. Knows no library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parts(
    items: Sequence[Item],
    run: Callable[[Sequence[Item]], Sequence[Result]],
    too_large: Callable[[Exception], bool],
) -> list[Result]:
    """The results of `run`, called again with halves whenever it failed for size. A single item's failure is raised."""
    try:
        return list(run(items))
    except Exception as error:
        if len(items) == 1 or not too_large(error):
            raise
    # Outside of `except`: the failed run's tensors hang on the error and must be gone first.
    half = len(items) // 2
    return [*in_parts(items[:half], run, too_large), *in_parts(items[half:], run, too_large)]
