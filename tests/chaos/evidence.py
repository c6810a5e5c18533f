"""Everything that is known after a run, in one value: the journals put in order, and what SQL, Redis and folders hold.

It gathers and joins; what is right is decided in `invariants`.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.faults import Fault, Poison
from tests.chaos.history import Event
from tests.chaos.points import KINDS

DEAD_LETTER = ("succeeded", "failed", "cancelled", "expired")
SLACK = 1.0
"""Seconds that a fault's window is widened by: what it broke is noticed a moment later."""
RECOVERY = 20.0
"""Seconds after a fault within which callers may still be told of it."""


@dataclass(slots=True)
class Operation:
    """One thing that a client asked, and what it was told."""

    id: str
    kind: str
    began: float
    facts: dict[str, Any]
    ended: float = float("inf")
    outcome: str = "open"
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def job(self) -> str | None:
        return self.told.get("job") or self.facts.get("job")

    @property
    def marker(self) -> str:
        return str(self.facts.get("marker"))


@dataclass(slots=True)
class Run:
    """One time that code ran for a job. `how` is None for a run whose engine died."""

    id: str
    job: str
    marker: str
    began: float
    pid: int
    model: str
    ended: float | None = None
    how: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """A fault while it lasted."""

    kind: type[Fault]
    number: int
    began: float
    ended: float
    what: str

    @property
    def name(self) -> str:
        return getattr(self.kind, "name", self.kind.__name__)

    def touches(self, since: float, until: float, after: float = SLACK) -> bool:
        return self.began - SLACK <= until and since <= self.ended + after


@dataclass(slots=True)
class Evidence:
    """What the checker judges."""

    operations: dict[str, Operation] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    drops: dict[str, float] = field(default_factory=dict)
    delivered: dict[str, list[str]] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    mail: list[Event] = field(default_factory=list)
    """Messages as they came in."""
    wrong: list[tuple[float, str]] = field(default_factory=list)
    """What did not fit together in Redis, and when."""
    left: dict[str, list[str]] = field(default_factory=dict)
    """What is left after the end, by what it is."""
    max_attempts: int = 3

    def of_kind(self, *kinds: str) -> list[Operation]:
        return [op for op in self.operations.values() if op.kind in kinds]

    def runs_of(self, job: str) -> list[Run]:
        return sorted((run for run in self.runs.values() if run.job == job), key=lambda run: run.began)

    def faults(self, trait: str, since: float, until: float, after: float = SLACK) -> list[Window]:
        """Faults with this trait that may have been felt between two moments."""
        return [w for w in self.windows if getattr(w.kind, trait) and w.touches(since, until, after)]

    @property
    def hooks(self) -> dict[str, str]:
        """What each piece of work was to do, by its marker."""
        found = {op.marker: str(op.facts.get("hooks")) for op in self.operations.values()}
        for op in self.of_kind("group"):
            found |= op.facts["members"]
        return found

    def any_fault(self, since: float, until: float) -> bool:
        return any(window.touches(since, until, RECOVERY) for window in self.windows)


def gather(events: list[Event]) -> Evidence:
    found = _ordered(events)
    poison = {marker for marker, hooks in found.hooks.items() if "!crash" in hooks}
    for run in found.runs.values():
        if run.marker in poison:
            found.windows.append(Window(Poison, 0, run.began, run.began, f"by {run.job}"))
    return found


def _ordered(events: list[Event]) -> Evidence:
    found = Evidence(mail=[event for event in events if event["event"] == "mail"])
    injected: dict[int, Event] = {}
    for event in events:
        match event:
            case {"event": "invoke"}:
                facts = {name: value for name, value in event.items() if name not in ("at", "event", "op")}
                found.operations[event["op"]] = Operation(event["op"], event["kind"], event["at"], facts)
            case {"event": "ok" | "refused" | "unknown", "op": str(name)}:
                op = found.operations[name]
                op.ended, op.outcome, op.told = event["at"], event["event"], event
            case {"event": "begin", "actor": "sink"}:
                marker, job = str(event["marker"]), str(event["job"])
                found.runs[event["run"]] = Run(
                    event["run"], job, marker, event["at"], event["pid"], event["model"]
                )
            case {"event": "end", "actor": "sink"}:
                found.runs[event["run"]].ended = event["at"]
                found.runs[event["run"]].how = event["how"]
            case {"event": "inject"}:
                injected[event["number"]] = event
            case {"event": "heal"}:
                start = injected.pop(event["number"])
                found.windows.append(
                    Window(KINDS[event["fault"]], event["number"], start["began"], event["at"], start["what"])
                )
            case {"event": "drop"}:
                found.drops[event["marker"]] = event["at"]
            case {"event": "wrong"}:
                found.wrong.append((event["at"], event["what"]))
    return found


def words_of(row: dict[str, Any]) -> list[str]:
    """The words of a row's result."""
    if not row["result"]:
        return []
    return str(json.loads(row["result"])["choices"][0]["message"]["content"]).split()


def run_of(words: list[str]) -> str | None:
    """The run that made these words."""
    return words[0].partition("/")[0] if words else None


def rows_by_marker(rows: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.values():
        found[marker_of(row)].append(row)
    return found


def marker_of(row: dict[str, Any]) -> str:
    return str((json.loads(row["metadata"]) if row["metadata"] else {}).get("marker"))


def needs_of(row: dict[str, Any]) -> tuple[list[str], str]:
    """What a job waits for, and what it does when that fails."""
    wish = json.loads(row.get("depends_on") or "null") or {}
    return wish.get("ids", []), wish.get("on_failure", "fail")
