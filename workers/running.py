"""An attempt under way, as the replica's loops see it. It must not know how an attempt is run."""

import asyncio
import time
from dataclasses import dataclass, field

from inferq.job import Failure
from queues.attempts import Attempt, Finish, Outcome
from workers.device_clock import DeviceClock


@dataclass(slots=True)
class Running:
    """An attempt under way. `stop` makes it end; `renewed` is when its lease was last seen to hold (monotonic).

    `store` says what the artifact store keeps it waiting for, None while it does not. `asked` is true from the moment
    the engine may have the request until it has answered or broken off; `begun` when part of the answer was passed on;
    `alone` from the moment at which it is to run with nothing beside it; `company` when something was.
    """

    attempt: Attempt
    task: asyncio.Task[Finish]
    charge: "Charge"
    stopped: str | None = None
    outcome: Outcome = Outcome.RETRY
    failure: Failure | None = None
    progress: float | None = None
    store: str | None = None
    asked: bool = False
    begun: bool = False
    alone: bool = False
    company: bool = False
    engine: object = None
    """What is another one for each life of the engine: the session in which it was asked."""
    began: float = field(default_factory=time.monotonic)
    renewed: float = field(default_factory=time.monotonic)

    def stop(self, why: str, outcome: Outcome = Outcome.RETRY, failure: Failure | None = None) -> None:
        """Make it end so; the first call counts. Without a `failure` it is the one that goes with the outcome."""
        if self.stopped is None:
            self.stopped, self.outcome, self.failure = why, outcome, failure
            self.task.cancel()


class Charge:
    """The device seconds of one attempt; it begins at once, and pauses while the device does nothing for it."""

    def __init__(self, clock: DeviceClock) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._since: float | None = clock.start()

    def pause(self) -> None:
        if self._since is not None:
            self._seconds += self._clock.stop(self._since)
            self._since = None

    def resume(self) -> None:
        if self._since is None:
            self._since = self._clock.start()

    def end(self) -> float:
        """Its share in seconds."""
        self.pause()
        return self._seconds
