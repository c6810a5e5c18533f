"""How many jobs go to Redis in one round trip, which serves nobody else meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

MOST, MOST_BYTES = 100, 2**22
"""A larger job goes by itself."""


def batches(items: Sequence[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """The same items, as many together as go in one round trip; `size_of` is the length of a job's body."""
    batch: list[T] = []
    size = 0
    for item in items:
        if batch and (len(batch) == MOST or size + size_of(item) > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += size_of(item)
    if batch:
        yield batch
