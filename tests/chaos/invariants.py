"""What must hold after every run: one function per promise, each with its own words for what it found.

Each takes the evidence and yields violations. An unknown outcome is never counted against anybody: the operation may
have happened or not. Excuses are named by the traits of the faults that were felt at the time, nothing else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.chaos.evidence import (
    DEAD_LETTER,
    RECOVERY,
    Evidence,
    Operation,
    Run,
    rows_by_marker,
    run_of,
    words_of,
)

KNOWN_REFUSALS = {
    429: {"queue_full"},
    499: {"caller_gone", "cancelled"},
    502: {"stream_broken", "replica_lost", "engine_crashed", "engine_error"},
    503: {
        "queue_unavailable", "store_unavailable", "redis_lost", "replica_stopped", "lease_lost", "engine_load_failed",
        "server_stopping",
    },
    504: {"engine_timeout", "timeout"},
}  # fmt: skip
"""Error answers that a caller may get while something is broken. 404 and 400 are nobody's fault here."""


STOPPING = 6.0
"""Seconds that an api process may take from SIGTERM to its end."""
SEEING = ("look", "cancel", "retry")
"""Operations that are told the state of a job."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise. `jobs` and `markers` say whose timeline tells more."""

    rule: str
    text: str
    jobs: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()


Rule = Callable[[Evidence], Iterator[Violation]]
RULES: list[Rule] = []


def rule(check: Rule) -> Rule:
    RULES.append(check)
    return check


def check(evidence: Evidence) -> list[Violation]:
    return [violation for each in RULES for violation in each(evidence)]


def _violation(rule: Rule, text: str, *jobs: str | None, markers: tuple[str, ...] = ()) -> Violation:
    return Violation(rule.__name__, text, tuple(filter(None, jobs)), markers)


def _asked_to_fail(hooks: str) -> bool:
    return "!crash" in hooks or "!error" in hooks


# Durable jobs


@rule
def no_accepted_job_is_lost(evidence: Evidence) -> Iterator[Violation]:
    """Each job whose acceptance was told has one row, and it has ended."""
    for op in evidence.of_kind("job"):
        if op.outcome != "ok":
            continue
        row = evidence.rows.get(str(op.job))
        if row is None:
            yield _violation(no_accepted_job_is_lost, f"{op.job} was accepted and is in no row", op.job)
        elif row["state"] not in DEAD_LETTER:
            text = f"{op.job} was accepted and is still {row['state']}"
            yield _violation(no_accepted_job_is_lost, text, op.job)


@rule
def no_phantom(evidence: Evidence) -> Iterator[Violation]:
    """Each durable row was asked for, and no more often than that; what was refused with 429 is in no row."""
    asked: dict[str, list[Operation]] = {}
    for op in evidence.of_kind("job"):
        asked.setdefault(op.marker, []).append(op)
    for marker, rows in rows_by_marker({i: r for i, r in evidence.rows.items() if r["durable"]}).items():
        ids = [row["id"] for row in rows]
        if marker in evidence.drops:
            if len(rows) > 1:
                yield _violation(no_phantom, f"the file {marker} became {len(rows)} jobs", *ids)
            continue
        possible = [op for op in asked.get(marker, []) if op.told.get("status") != 429]
        if len(rows) > 1 and any(op.facts.get("keyed") for op in possible):
            yield _violation(no_phantom, f"{marker}: {len(rows)} rows for one idempotency key", *ids)
        elif len(rows) > len(possible):
            text = f"{marker}: asked for {len(possible)} times and not refused, {len(rows)} rows"
            yield _violation(no_phantom, text, *ids)


@rule
def accepted_jobs_can_be_found(evidence: Evidence) -> Iterator[Violation]:
    """Whoever asks for an accepted durable job is never told that there is none."""
    accepted = {op.job: op.ended for op in evidence.of_kind("job") if op.outcome == "ok"}
    for op in evidence.of_kind(*SEEING):
        if op.told.get("status") == 404 and op.began > accepted.get(op.job, float("inf")):
            yield _violation(accepted_jobs_can_be_found, f"{op.kind} of {op.job}: 404", op.job)


@rule
def terminal_is_final(evidence: Evidence) -> Iterator[Violation]:
    """Once somebody saw an end, everybody who asks later sees the same end, until somebody asks for another run."""
    for (job, generation), first in _ends_seen(evidence).items():
        row = evidence.rows.get(job)
        state = first.told["state"]
        if row is None:
            if not evidence.faults("forgets", 0, first.ended + RECOVERY):
                yield _violation(terminal_is_final, f"{job} had ended and is in no row", job)
        elif row["durable"] and row["generation"] < generation:
            text = f"{job} was seen in generation {generation} and its row says {row['generation']}"
            yield _violation(terminal_is_final, text, job)
        elif row["durable"] and row["generation"] == generation and row["state"] != state:
            yield _violation(
                terminal_is_final, f"{job} was seen {state} and its row says {row['state']}", job
            )


@rule
def an_end_is_not_taken_back(evidence: Evidence) -> Iterator[Violation]:
    """After an end was seen nobody is told anything else of that generation, unless Redis forgot something."""
    seen = _ends_seen(evidence)
    durable = {job for job, row in evidence.rows.items() if row["durable"]}
    for op in evidence.of_kind(*SEEING):
        if op.outcome != "ok" or op.job not in durable:
            continue
        first = seen.get((str(op.job), op.told["generation"]))
        if first is None or op.began <= first.ended or op.told["state"] == first.told["state"]:
            continue
        if not evidence.faults("forgets", first.began, op.ended, RECOVERY):
            text = f"{op.job} was {first.told['state']} and later {op.told['state']}"
            yield _violation(an_end_is_not_taken_back, text, op.job)


def _ends_seen(evidence: Evidence) -> dict[tuple[str, int], Operation]:
    """The first time that somebody was told of the end of a job's generation."""
    seen: dict[tuple[str, int], Operation] = {}
    for op in sorted(evidence.of_kind(*SEEING), key=lambda op: op.ended):
        if op.outcome == "ok" and op.told["state"] in DEAD_LETTER:
            seen.setdefault((str(op.job), op.told["generation"]), op)
    return seen


@rule
def results_are_of_the_last_attempt(evidence: Evidence) -> Iterator[Violation]:
    """A committed result was made whole, for this job, by a run that began after the last claim."""
    for job, row in evidence.rows.items():
        if row["state"] != "succeeded" or not row["kept"]:
            continue
        words = words_of(row)
        run = evidence.runs.get(run_of(words) or "")
        if run is None:
            text = f"{job} has succeeded with a result that no run made: {words[:3]}"
            yield _violation(results_are_of_the_last_attempt, text, job)
            continue
        if run.job != job or run.how != "done":
            text = f"the result of {job} is of run {run.id}, which was for {run.job} and ended {run.how}"
            yield _violation(results_are_of_the_last_attempt, text, job, run.job)
        if words != [f"{run.id}/{number}" for number in range(len(words))]:
            yield _violation(
                results_are_of_the_last_attempt, f"the result of {job} is not whole: {words}", job
            )
        bent = evidence.faults("bends_time", run.began, run.began, RECOVERY)
        if row["started_at"] and run.began < row["started_at"] and not bent:
            early = row["started_at"] - run.began
            text = f"the result of {job} is of a run that began {early:.2f} s before its last attempt did"
            yield _violation(results_are_of_the_last_attempt, text, job)


@rule
def attempts_are_bounded(evidence: Evidence) -> Iterator[Violation]:
    """No row shows more attempts than allowed, and code ran no more often, except where Redis forgot the count."""
    handbacks = 3
    for job, row in evidence.rows.items():
        if row["attempt"] > row["max_attempts"]:
            text = f"{job} has had {row['attempt']} attempts of {row['max_attempts']}"
            yield _violation(attempts_are_bounded, text, job)
        runs = evidence.runs_of(job)
        if not runs:
            continue
        forgot = len(evidence.faults("forgets", lifetime(row, evidence)[0], runs[-1].began))
        if len(runs) > (row["max_attempts"] + handbacks) * (1 + forgot + row["generation"]):
            text = f"{job} was run {len(runs)} times; generation {row['generation']}, Redis forgot {forgot} times"
            yield _violation(attempts_are_bounded, text, job)


@rule
def no_attempt_is_spent_for_nothing(evidence: Evidence) -> Iterator[Violation]:
    """Where no fault could cost a lease or an engine, the first attempt of a job is its last."""
    hooks = {op.marker: str(op.facts.get("hooks")) for op in evidence.operations.values()}
    for job, row in evidence.rows.items():
        runs = evidence.runs_of(job)
        if row["attempt"] <= 1 and len(runs) <= 1 + row["generation"]:
            continue
        broken = evidence.faults("breaks_runs", *lifetime(row, evidence), RECOVERY)
        asked = runs and _asked_to_fail(hooks.get(runs[0].marker, ""))
        if not (broken or asked):
            text = f"{job}: attempt {row['attempt']}, {len(runs)} runs, and nothing was broken"
            yield _violation(no_attempt_is_spent_for_nothing, text, job)


def lifetime(row: dict[str, Any], evidence: Evidence) -> tuple[float, float]:
    """From its acceptance to its end, as its row says; where clocks jumped, nothing narrower than its runs."""
    since, until = row["created_at"], row["finished_at"] or float("inf")
    if not any(window.kind.bends_time for window in evidence.windows):
        return since, until
    runs = evidence.runs_of(row["id"])
    return min([since, *(run.began for run in runs)]), float("inf")


@rule
def failures_have_a_cause(evidence: Evidence) -> Iterator[Violation]:
    """A durable job that should succeed fails only when its attempts are used up or its model cannot be loaded."""
    hooks = {op.job: str(op.facts.get("hooks")) for op in evidence.of_kind("job") if op.outcome == "ok"}
    cancels = {op.job for op in evidence.of_kind("cancel")}
    for job, row in evidence.rows.items():
        if not row["durable"]:
            continue
        if row["state"] == "cancelled" and job not in cancels:
            yield _violation(failures_have_a_cause, f"{job} is cancelled and nobody asked for that", job)
        elif row["state"] == "expired":
            yield _violation(failures_have_a_cause, f"{job} is expired and has no deadline", job)
        elif row["state"] == "failed" and not _asked_to_fail(hooks.get(job, "")):
            spent = row["attempt"] >= row["max_attempts"]
            known = row["error_code"] in ("engine_load_failed", "replica_stopped")
            if not (spent or known):
                text = f"{job} failed with {row['error_code']} in attempt {row['attempt']}: {row['error_message']}"
                yield _violation(failures_have_a_cause, text, job)


# Cancels


@rule
def a_cancel_is_an_end(evidence: Evidence) -> Iterator[Violation]:
    """Who cancels and is told yes is shown an end. That it stays so, `terminal_is_final` says."""
    for op in evidence.of_kind("cancel"):
        if op.outcome != "ok":
            continue
        if op.told["state"] not in DEAD_LETTER:
            text = f"{op.job} was cancelled and is {op.told['state']}"
            yield _violation(a_cancel_is_an_end, text, op.job)


@rule
def nothing_begins_after_its_end(evidence: Evidence) -> Iterator[Violation]:
    """No run begins for a job that somebody was told had ended, except where Redis forgot that or it was asked for."""
    again = {op.job for op in evidence.of_kind("retry") if op.outcome != "refused"}
    for op in evidence.of_kind("cancel", "look"):
        if op.outcome != "ok" or op.told["state"] not in DEAD_LETTER or op.job in again:
            continue
        for run in evidence.runs_of(str(op.job)):
            excused = evidence.faults("forgets", op.began, run.began, RECOVERY) or evidence.faults(
                "breaks_runs", op.began - RECOVERY, run.began, RECOVERY
            )
            if run.began > op.ended + 1.0 and not excused:
                text = f"{op.job} was {op.told['state']}, and run {run.id} began {run.began - op.ended:.1f} s later"
                yield _violation(nothing_begins_after_its_end, text, op.job)


# Runs


@rule
def runs_do_not_overlap(evidence: Evidence) -> Iterator[Violation]:
    """Code runs for a job a second time only when a fault had ended the trust in the first."""
    for first, second in overlaps(evidence):
        if not evidence.faults("breaks_runs", first.began, second.began):
            text = (
                f"run {second.id} of {first.job} began while run {first.id} went on, and nothing was broken"
            )
            yield _violation(runs_do_not_overlap, text, first.job)


def overlaps(evidence: Evidence) -> Iterator[tuple[Run, Run]]:
    """Pairs of runs of one job, the second of which began before the first had ended."""
    by_job: dict[str, list[Run]] = {}
    for run in sorted(evidence.runs.values(), key=lambda run: run.began):
        earlier = by_job.setdefault(run.job, [])
        if earlier:
            last = earlier[-1]
            if last.ended is not None and last.ended > run.began:
                yield last, run
        earlier.append(run)


# Calls and streams


@rule
def each_call_is_answered_once(evidence: Evidence) -> Iterator[Violation]:
    """A call gets its own answer, or a known refusal while something was broken, or dies with its api process."""
    for op in evidence.of_kind("call", "stream", "kept"):
        yield from _judge_end(op, evidence)
        if op.outcome != "ok" or not op.told.get("text"):
            continue
        words = op.told["text"].split()
        run = evidence.runs.get(run_of(words) or "")
        if run is None or run.marker != op.marker or run.job != op.job:
            text = f"{op.id} ({op.marker}) got the answer of {run and run.marker}"
            yield _violation(each_call_is_answered_once, text, op.job)
        elif words != [f"{run.id}/{number}" for number in range(len(words))]:
            text = f"{op.id}: its words are not in order: {words}"
            yield _violation(each_call_is_answered_once, text, op.job)
        elif op.kind == "call" and run.how != "done":
            text = f"{op.id} has the whole answer of a run that ended {run.how}"
            yield _violation(each_call_is_answered_once, text, op.job)


def _api_was_broken(op: Operation, evidence: Evidence) -> bool:
    """A stop takes as long as its drain; a connection is refused until the next process listens."""
    after = RECOVERY if "ConnectError" in str(op.told.get("why")) else STOPPING
    return bool(evidence.faults("breaks_calls", op.began, op.ended, after))


def _judge_end(op: Operation, evidence: Evidence) -> Iterator[Violation]:
    if op.outcome == "open":
        yield _violation(each_call_is_answered_once, f"{op.id} was never answered", op.job)
    elif op.outcome == "unknown" and not _api_was_broken(op, evidence):
        text = f"{op.id} lost its connection and no api was broken: {op.told['why']}"
        yield _violation(each_call_is_answered_once, text, op.job)


@rule
def streams_end_as_they_should(evidence: Evidence) -> Iterator[Violation]:
    """A stream ends with [DONE] after all its words, or with an error event."""
    for op in evidence.of_kind("stream"):
        if op.outcome != "ok":
            continue
        words, end = op.told["text"].split(), op.told["end"]
        if end == "cut" and not _api_was_broken(op, evidence):
            text = f"{op.id}: the stream ended without [DONE] or an error"
            yield _violation(streams_end_as_they_should, text, op.job)
        wanted = int(str(op.facts["hooks"]).partition("!tokens=")[2].split()[0])
        if end == "done" and len(words) != wanted:
            text = f"{op.id}: [DONE] after {len(words)} of {wanted} words"
            yield _violation(streams_end_as_they_should, text, op.job)


@rule
def refusals_are_known(evidence: Evidence) -> Iterator[Violation]:
    """Error answers are those of the table, have a code and a message, and come only while something is broken."""
    for op in evidence.operations.values():
        if op.outcome != "refused":
            continue
        status, code = op.told["status"], op.told["code"]
        if op.kind in SEEING and (status == 404 or (op.kind == "retry" and status == 409)):
            continue  # 404 is judged elsewhere: what is only in Redis may be gone
        failing = _asked_to_fail(str(op.facts.get("hooks")))
        if code not in KNOWN_REFUSALS.get(status, ()) and not failing:
            text = f"{op.id}: {status} {code}: {op.told['message']}"
            yield _violation(refusals_are_known, text, op.job, markers=(op.marker,))
        elif not failing and status >= 500 and not evidence.any_fault(op.began, op.ended):
            text = f"{op.id}: {status} {code} with nothing broken: {op.told['message']}"
            yield _violation(refusals_are_known, text, op.job, markers=(op.marker,))


@rule
def calls_are_on_record(evidence: Evidence) -> Iterator[Violation]:
    """A call that was answered, and work that was to be kept, has ended in SQL, except where Redis forgot it before."""
    cancels = {op.job for op in evidence.of_kind("cancel")}
    for op in evidence.of_kind("call", "kept"):
        if op.outcome != "ok":
            continue
        row = evidence.rows.get(str(op.job))
        if row is None:
            if not evidence.faults("forgets", op.began, op.ended, RECOVERY):
                yield _violation(calls_are_on_record, f"{op.id}: {op.job} is in no row", op.job)
        elif op.kind == "call" and row["state"] != "succeeded":
            text = f"{op.id}: {op.job} was answered and its row says {row['state']}"
            yield _violation(calls_are_on_record, text, op.job)
        elif row["state"] == "cancelled" and op.job not in cancels:
            text = f"{op.id}: {op.job} was to be kept and is cancelled, which nobody asked for"
            yield _violation(calls_are_on_record, text, op.job)


# Files


@rule
def each_file_comes_back(evidence: Evidence) -> Iterator[Violation]:
    """Each dropped file has one result or one error."""
    for marker in evidence.drops:
        found = evidence.delivered.get(marker, [])
        if len(found) != 1:
            yield _violation(
                each_file_comes_back, f"the file {marker} came back as {found}", markers=(marker,)
            )


# Redis and what is left


@rule
def redis_fits_together(evidence: Evidence) -> Iterator[Violation]:
    """Counters, ready sets, leases and states agreed each time that somebody looked."""
    for at, what in evidence.wrong:
        yield _violation(redis_fits_together, f"at {at:.1f}: {what}")


@rule
def nothing_is_left(evidence: Evidence) -> Iterator[Violation]:
    """After the last job nothing of it stays: no lease, place, key without end, slot, temporary file or process."""
    for what, names in evidence.left.items():
        yield _violation(nothing_is_left, f"{what}: {', '.join(names[:10])}")
