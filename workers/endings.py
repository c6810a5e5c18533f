"""What the end of an attempt means: for its job, whether it is tried again and when, and for the engine's breaker.

It decides and writes nothing: `runner` sees how an attempt ended and tells Redis what is said here.
"""

from dataclasses import replace

from inferq import errors
from inferq.job import Failure, Job
from inferq.retry import OUT_OF_MEMORY, RetryPolicy
from queues.attempts import Attempt, Finish, Outcome, error_frame
from workers.breaker import Breaker
from workers.forward import Break, EngineBroke
from workers.running import Running
from workers.storing import ADVICE

MOST_CRASHES = 2
"""Deaths of an engine while it ran one job and no other, after which the job is not tried again."""
REMEMBERED = 1000
"""Jobs whose crashes are counted."""
_SMALLER = "ask for less at a time, or give the model a device with more memory"
_STOPS = {
    Outcome.FAILED: ("engine_timeout", 504),
    Outcome.CANCELLED: ("caller_gone", 499),
    Outcome.RETRY: ("lease_lost", 503),
    Outcome.HANDBACK: ("replica_stopped", 503),
}


class Endings:
    """Of the attempts of one replica. `breaker` is told how its engine does."""

    def __init__(self, retry: RetryPolicy, breaker: Breaker) -> None:
        self.breaker = breaker
        self._retry = retry
        self._crashes: dict[str, int] = {}

    def broken(self, running: Running, broke: EngineBroke, *, died: bool) -> tuple[Outcome, Failure]:
        """The engine has not answered: it told why, or broke off. `died`: its process ended, and ran only this job."""
        if broke.failure is not None:
            return Outcome.FAILED if running.alone and no_memory(broke) else Outcome.RETRY, broke.failure
        crashes = self._crashes_of(running.attempt.id) if died else 0
        if crashes >= MOST_CRASHES:
            # The fault is the job's, and says nothing about the engine.
            why = f"the engine died {crashes} times while it ran this job and no other: {broke}"
            return Outcome.FAILED, failure_of("engine_crashed", why, 502)
        if broke.how is not Break.ABSENT:
            self.breaker.failed(running.attempt.id, death=running.engine if broke.how is Break.CUT else None)
        return Outcome.RETRY, failure_of("engine_crashed", f"the engine broke off: {broke}", 502)

    def failed(self, attempt: Attempt, failure: Failure, outcome: Outcome, *, ran: float) -> Finish:
        """The end of an attempt of `ran` seconds without an answer, with the pause before the next one."""
        frame = error_frame(attempt.id, attempt.token, failure) if attempt.reply_to else b""
        delay = 0.0
        if outcome is Outcome.RETRY:
            job = attempt.job
            waited = _waited(job) + ran if attempt.reply_to else None
            delay = self._retry.pause(failure.code, job.attempt, waited=waited)
        return Finish(outcome=outcome, delay=delay, frame=frame, failure=failure)

    def _crashes_of(self, job_id: str) -> int:
        """How often the engine has died, here, while it ran this job and no other; remembered for the last jobs."""
        crashes = self._crashes.pop(job_id, 0) + 1
        self._crashes[job_id] = crashes
        if len(self._crashes) > REMEMBERED:
            del self._crashes[next(iter(self._crashes))]
        return crashes


def _waited(job: Job) -> float:
    """From its acceptance to the claim of this attempt, both by the clock of Redis."""
    return max((job.started_at or 0.0) - (job.queued_at or 0.0), 0.0)


def stop_late(running: Running) -> None:
    """The time of an attempt is up: with its engine, with the store, or while others had to leave the engine first."""
    spec = running.attempt.job.spec
    if running.store is not None:
        why = f"{running.store}, until the {spec.run_timeout:g} s of the job were over"
        outcome = Outcome.RETRY if spec.kept else Outcome.FAILED
        running.stop(why, outcome, store_failure(why))
    elif running.alone and not running.asked:
        why = f"other jobs did not leave the engine within the {spec.run_timeout:g} s of the job"
        running.stop(why, Outcome.RETRY, failure_of(OUT_OF_MEMORY, why, 500))
    else:
        running.stop(f"the job ran longer than {spec.run_timeout:g} s", Outcome.FAILED)


def stopped(running: Running) -> tuple[Outcome, Failure]:
    """What the one who stopped an attempt has said."""
    code, status = _STOPS[running.outcome]
    told = failure_of(code, running.stopped or "the attempt was stopped", status)
    return running.outcome, running.failure or told


def failure_of(code: str, message: str, status: int) -> Failure:
    return Failure(code=code, message=message, status=status)


def store_failure(why: str) -> Failure:
    return failure_of(errors.StoreUnavailable.code, f"{why}; {ADVICE}", 503)


def no_memory(broke: EngineBroke) -> bool:
    """Whether the engine is well and had no memory for the request."""
    return broke.failure is not None and broke.failure.code == OUT_OF_MEMORY


def advised(broke: EngineBroke) -> EngineBroke:
    """With what can be done about it, where memory ran out although nothing ran beside the job."""
    if broke.failure is None or not no_memory(broke):
        return broke
    told = f"{broke.failure.message} (also alone; {_SMALLER})"
    return EngineBroke(told, replace(broke.failure, message=told))
