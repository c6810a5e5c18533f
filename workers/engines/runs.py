"""The requests now running in this engine, and how far each has come.

A replica reads them from `/health` and `/runs`: a run that is gone from the list has released what it held,
which is what confirms a cancel; a run whose `age_s` since its last report grows is stuck. Must not decide
anything itself.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Run:
    """One request while it runs. `report` may be called from any thread."""

    id: str
    path: str
    began: float = field(default_factory=time.monotonic)
    reported: float = field(default_factory=time.monotonic)
    stage: str = "running"
    done: float = 0
    total: float | None = None

    def report(self, done: float, total: float | None = None, stage: str | None = None) -> None:
        self.done = done
        self.total = total if total is not None else self.total
        self.stage = stage or self.stage
        self.reported = time.monotonic()

    def view(self) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "id": self.id,
            "path": self.path,
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "running_s": round(now - self.began, 3),
            "age_s": round(now - self.reported, 3),
        }


class Runs:
    """Keeps a run from the moment its body is read until its handler has unwound."""

    def __init__(self) -> None:
        self._active: dict[str, Run] = {}
        self.served = 0

    @contextmanager
    def track(self, headers: Mapping[str, str], path: str) -> Iterator[Run]:
        wanted = headers.get("x-request-id") or uuid.uuid4().hex
        # Two requests may carry one id (a retry beside its original): both must stay visible.
        name = wanted if wanted not in self._active else f"{wanted}#{uuid.uuid4().hex[:8]}"
        run = self._active[name] = Run(name, path)
        try:
            yield run
        finally:
            del self._active[name]
            self.served += 1

    def view(self) -> list[dict[str, Any]]:
        return [run.view() for run in list(self._active.values())]

    def __len__(self) -> int:
        return len(self._active)
