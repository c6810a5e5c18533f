"""The circuit breaker of one replica: an engine that fails job after job gets none for a while, then one to try.

    closed ──jobs fail in a row──► open ──its time is over──► half_open ──success──► closed
                                     ▲                           │
                                     └────failure, longer time───┘

It must not know jobs or engines; whoever runs them says how they ended. Times are of its own monotonic clock.
"""

import time
from collections.abc import Callable
from enum import StrEnum

LONGEST = 300.0
"""Seconds for which it stays open at most."""


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Opens after `failures` in a row, for `delay` seconds, twice as long each time that the try fails.

    What counts are jobs that failed and deaths of the engine: a job that fails in each of its attempts is one failure,
    as are all jobs that one death took along. So one bad job does not close an engine to others.
    """

    def __init__(self, failures: int, delay: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._delay = delay
        self._clock = clock
        self._seen: set[object] = set()
        """Failures since the last success."""
        self._opened = 0
        self._until = 0.0
        self._state = Circuit.CLOSED

    @property
    def state(self) -> Circuit:
        if self._state is Circuit.OPEN and self._clock() >= self._until:
            self._state = Circuit.HALF_OPEN
        return self._state

    @property
    def left(self) -> float:
        """Seconds for which it stays open."""
        return max(self._until - self._clock(), 0.0) if self.state is Circuit.OPEN else 0.0

    def allows(self, *, others: int) -> bool:
        """Whether another job may be taken, beside so many that are taken already."""
        return self.state is Circuit.CLOSED or (self.state is Circuit.HALF_OPEN and others == 0)

    def succeeded(self) -> None:
        """The engine answered; also when it refused a request, it is well."""
        if self.state is not Circuit.OPEN:  # what was begun before says nothing about now
            self._state, self._opened = Circuit.CLOSED, 0
            self._seen.clear()

    def failed(self, job: str, *, death: object = None) -> None:
        """The engine failed in a job, or, by `death`, as a whole."""
        known = (job if death is None else death) in self._seen
        if self.state is Circuit.OPEN or (known and (death is not None or self.state is Circuit.CLOSED)):
            return
        self._seen.add(job if death is None else death)
        if self.state is Circuit.HALF_OPEN or len(self._seen) >= self._limit:
            self._state = Circuit.OPEN
            self._until = self._clock() + min(self._delay * 2.0 ** min(self._opened, 32), LONGEST)
            self._opened += 1
            # Of this death there may be late news.
            self._seen = set() if death is None else {death}
