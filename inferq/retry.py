"""Retry policy: what kind of fault an error code stands for, and how long to wait before another attempt. Pure.

1. transient   may pass by itself: after a pause that grows with each attempt.
2. resource    the job needed more than there was: once more, alone, and in the smallest pieces.
3. permanent   the same job fails the same way: never.
4. lost        the attempt was taken away, nothing is wrong with the job: at once.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

OUT_OF_MEMORY = "out_of_memory"
INTERACTIVE_DELAY = 0.5
"""Seconds of the first pause when somebody waits for the answer: long enough for a fault that passes with the request
beside it, and not yet long for a person. An engine that has to start again takes longer, but a job that is queued waits
for it anyway."""


class FaultClass(StrEnum):
    TRANSIENT = "transient"
    RESOURCE = "resource"
    PERMANENT = "permanent"
    LOST = "lost"


_CLASSES = {
    **dict.fromkeys(
        ("engine_crashed", "engine_error", "internal_error", "hub_unreachable", "store_unavailable"),
        FaultClass.TRANSIENT,
    ),
    OUT_OF_MEMORY: FaultClass.RESOURCE,
    **dict.fromkeys(("lease_lost", "replica_lost", "replica_stopped"), FaultClass.LOST),
}


def classify(code: str) -> FaultClass:
    """The class of a failure's code. An engine has codes of its own for what is wrong with a request: permanent."""
    return _CLASSES.get(code, FaultClass.PERMANENT)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`delay` and `max_delay` are seconds; `wait` is how long callers wait for an answer at most."""

    delay: float = 5.0
    max_delay: float = 300.0
    wait: float = 600.0

    def pause(
        self,
        code: str,
        attempt: int,
        *,
        waited: float | None = None,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> float:
        """Seconds until the next attempt after this one (they count from 1) failed with this code.

        A transient fault: `uniform(0, min(max_delay, delay * 2 ** (attempt - 1)))`, which is exponential back-off with
        full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): what failed together
        does not come back together. Others: none.

        `waited`: somebody has waited for the answer so many seconds. Then the first pause is shorter, and none takes
        more than half of the time that is left.
        """
        if classify(code) is not FaultClass.TRANSIENT:
            return 0.0
        base = self.delay if waited is None else min(self.delay, INTERACTIVE_DELAY)
        # The exponent is bounded before the power is: a float ends at 2 ** 1024.
        longest = min(self.max_delay, base * 2.0 ** min(max(attempt, 1) - 1, 64))
        if waited is not None:
            longest = min(longest, max(self.wait - waited, 0.0) / 2)
        return draw(0.0, longest)
