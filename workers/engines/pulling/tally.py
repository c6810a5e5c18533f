"""What one pull has, and what it may take: all its files together, for all its threads. Must not know where from."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workers.engines.pulling.troubles import CannotPull, full

LOOK_AT_DISK_EVERY = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Bounds:
    """`max_bytes` of one model, `reserve_bytes` that stay free on the disk, `pause_s` scales the pauses of retries."""

    max_bytes: int
    reserve_bytes: int
    pause_s: float


class Tally:
    """Bytes that are there, by file. `report` gets their sum."""

    def __init__(self, bounds: Bounds, folder: Path, report: Callable[[int], None]) -> None:
        self._bounds, self._folder, self._report = bounds, folder, report
        self._there: dict[str, int] = {}
        self._counting = threading.Lock()
        self._unseen: int | None = None  # bytes admitted since the last look at the disk
        self.sum = 0
        self.fetched = 0
        """Bytes that came with this run."""

    def note(self, path: str, count: int) -> None:
        with self._counting:
            self.sum += count - self._there.get(path, 0)
            self._there[path] = count
        self._report(self.sum)

    def admit(self, path: str, more: int) -> None:
        """Raise CannotPull when so many bytes of a file would be more than a model may have, or fill the disk."""
        if self.sum + more > self._bounds.max_bytes:
            raise CannotPull(f"With {path} the model is larger than hub.max_bytes allows.", code="too_large")
        if self._unseen is None or self._unseen + more > LOOK_AT_DISK_EVERY:
            self._unseen = 0
            if shutil.disk_usage(self._folder).free < self._bounds.reserve_bytes:
                raise full(f"{path} would take the last {self._bounds.reserve_bytes} bytes")
        self._unseen += more
