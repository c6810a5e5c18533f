"""What was seen in the watched directory, and which files are ready to be taken. Pure; the caller tells the time.

A file is ready

1. at once, when it was renamed into place: who does that has finished writing;
2. else, when two looks at least QUIET apart found the same inode, size and modification time;
3. but not while it is held back: its model's queue is full, nothing more is let in for now, or a first try met a
   fault that may pass.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from watchers.identity import Identity

QUIET = 0.5
"""Seconds without a change after which a file counts as written."""
MOST = 10_000
"""Files that are kept in mind at once; the others wait for their turn on the disk."""


@dataclass(slots=True)
class Sight:
    """One file, in the same state from `since` to `seen_at` at least."""

    identity: Identity
    since: float
    seen_at: float
    renamed: bool
    model: str | None = None
    held_until: float = 0.0

    @property
    def settled(self) -> bool:
        return self.renamed or self.seen_at - self.since >= QUIET


class Sightings:
    def __init__(self) -> None:
        self._seen: dict[str, Sight] = {}
        self._full: dict[str, float] = {}
        self._all_held_until = 0.0

    def __getitem__(self, name: str) -> Sight:
        return self._seen[name]

    def __len__(self) -> int:
        return len(self._seen)

    def look(self, name: str, identity: Identity | None, now: float, *, renamed: bool = False) -> None:
        """The file is in this state now; None: it is gone."""
        known = self._seen.get(name)
        if identity is None:
            self._seen.pop(name, None)
        elif known is not None and known.identity == identity:
            known.seen_at = now
            known.renamed = known.renamed or renamed
        elif known is not None or len(self._seen) < MOST:
            self._seen[name] = Sight(identity, now, now, renamed)

    def look_at_all(self, found: Mapping[str, Identity], now: float) -> None:
        """A whole scan: what is not in it is gone."""
        for name in self._seen.keys() - found.keys():
            del self._seen[name]
        for name, identity in found.items():
            self.look(name, identity, now)

    def forget(self, name: str) -> None:
        self._seen.pop(name, None)

    def hold(self, name: str, until: float) -> None:
        """Not before `until`; infinity: not before `release`."""
        if name in self._seen:
            self._seen[name].held_until = until

    def release(self, name: str) -> None:
        """End a hold that has no end of its own."""
        if name in self._seen and self._seen[name].held_until == math.inf:
            self._seen[name].held_until = 0.0

    def hold_model(self, name: str, model: str, until: float) -> None:
        """No file known to be for this model before `until`, this one first of all."""
        self._full[model] = until
        if name in self._seen:
            self._seen[name].model = model

    def hold_all(self, until: float) -> None:
        """No file before `until`."""
        self._all_held_until = until

    def is_held(self, name: str, now: float) -> bool:
        return self._free_at(self._seen[name]) > now

    def to_look_at(self, now: float) -> list[str]:
        """Files that need another look: those that must settle, and those that are about to be taken."""
        return [
            name for name, sight in self._seen.items() if not sight.settled or self._free_at(sight) <= now
        ]

    def ready(self, now: float) -> list[str]:
        """Files to take, oldest first."""
        ready = [name for name, sight in self._seen.items() if sight.settled and self._free_at(sight) <= now]
        return sorted(ready, key=lambda name: (self._seen[name].identity.mtime_ns, name))

    def next_at(self) -> float:
        """When another look or another try is due; infinity for never."""
        times = (self._free_at(s) if s.settled else s.since + QUIET for s in self._seen.values())
        return min(times, default=float("inf"))

    def _free_at(self, sight: Sight) -> float:
        full = self._full.get(sight.model, 0.0) if sight.model else 0.0
        return max(sight.held_until, full, self._all_held_until)
