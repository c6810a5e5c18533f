"""What happened, as each actor saw it: one append-only file per actor, one JSON object a line, never changed.

Times are Unix seconds of this machine's clock, which all actors and Redis share.
"""

import json
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Journal:
    """The file of one actor. A line is written in one call, so a killed writer leaves whole lines."""

    def __init__(self, folder: Path, actor: str) -> None:
        self.actor = actor
        self._file = os.open(folder / f"{actor}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, event: str, **facts: Any) -> float:
        """Write one event; its time."""
        at = time.time()
        line = json.dumps({"at": at, "actor": self.actor, "event": event, **facts})
        os.write(self._file, line.encode() + b"\n")
        return at

    def close(self) -> None:
        os.close(self._file)


class Operations:
    """Numbers the operations of one actor: each is invoked once and answered at most once."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._lock = threading.Lock()
        self._count = 0

    def invoke(self, kind: str, **facts: Any) -> str:
        with self._lock:
            self._count += 1
            op = f"{self.journal.actor}-{self._count}"
        self.journal.note("invoke", op=op, kind=kind, **facts)
        return op

    def answer(self, op: str, outcome: str, **facts: Any) -> None:
        """`outcome`: ok, refused (an error answer), or unknown (no answer: it may or may not have happened)."""
        self.journal.note(outcome, op=op, **facts)


def read(folder: Path) -> list[Event]:
    """The events of all actors, in the order of their times."""
    found = [event for file in folder.glob("*.jsonl") for event in _events(file)]
    return sorted(found, key=lambda event: event["at"])


def _events(file: Path) -> Iterable[Event]:
    for line in file.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)
