"""What a site stands on: which Redis, which database, whether its disks can be full and its clocks can jump.

Each fault names what it needs; a site offers some of it. Nothing is left out silently: what is missing here is said.
"""

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tests.chaos.clocks import find_library
from tests.chaos.postgres import find_programs
from tests.disk import may_mount

EMBEDDED, SENTINEL = "embedded", "sentinel"
SQLITE, POSTGRESQL = "sqlite", "postgresql"
DISKS, CLOCKS = "disks", "clocks"
_PAIRS = ((EMBEDDED, SENTINEL), (SQLITE, POSTGRESQL))


@dataclass(frozen=True, slots=True)
class Ground:
    """The usual one is Redis behind a network of the suite's own, and SQLite."""

    redis: str = EMBEDDED
    database: str = SQLITE
    disks: bool = False
    clocks: bool = False

    @property
    def offers(self) -> frozenset[str]:
        found = {self.redis, self.database}
        return frozenset(found | ({DISKS} if self.disks else set()) | ({CLOCKS} if self.clocks else set()))


def ground_for(needs: Iterable[str], redis: str | None, database: str | None) -> Ground:
    """What was asked for by name, else what the faults need, else the usual. Raises ValueError where that is no one
    site.
    """
    wanted = set(needs) | {each for each in (redis, database) if each}
    for pair in _PAIRS:
        if wanted.issuperset(pair):
            raise ValueError(f"no site has {' and '.join(sorted(pair))} at once, which these faults need")
    return Ground(
        SENTINEL if SENTINEL in wanted else EMBEDDED,
        POSTGRESQL if POSTGRESQL in wanted else SQLITE,
        disks=DISKS in wanted,
        clocks=CLOCKS in wanted,
    )


def drawn(seed: str, lacking: Collection[str]) -> tuple[str, str]:
    """Which Redis and which database a seed stands on: two in three on what a laptop has, the others on what a
    cluster has.
    """
    rng = random.Random(f"{seed}/ground")
    redis, database = (rng.choice((usual, usual, other)) for usual, other in _PAIRS)
    return redis, SQLITE if database in lacking else database


def missing() -> dict[str, str]:
    """What this machine cannot offer, and why."""
    found = {}
    if not may_mount():
        found[DISKS] = "this user may not mount a tmpfs"
    if find_library() is None:
        found[CLOCKS] = "libfaketime is not installed (Debian: libfaketime)"
    try:
        find_programs()
    except LookupError as error:
        found[POSTGRESQL] = str(error)
    return found
