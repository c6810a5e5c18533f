"""Device seconds: time on a replica divided among the jobs that run on it at the moment."""

import time


class DeviceClock:
    """While n jobs run, each is charged 1/n of the time. One running total serves all of them."""

    def __init__(self) -> None:
        self._running = 0
        self._total = 0.0
        self._at = time.monotonic()

    def start(self) -> float:
        """A job begins; keep the value for `stop`."""
        self._advance()
        self._running += 1
        return self._total

    def stop(self, started: float) -> float:
        """The job has ended; its share in seconds."""
        self._advance()
        self._running -= 1
        return self._total - started

    def _advance(self) -> None:
        now = time.monotonic()
        if self._running:
            self._total += (now - self._at) / self._running
        self._at = now
