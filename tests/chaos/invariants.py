"""What must hold after every run: one function per promise, each with its own words for what it found.

Each takes the evidence and yields violations. An unknown outcome is never counted against anybody: the operation may
have happened or not. Excuses are named by the traits of the faults that were felt at the time, nothing else.
Promises to callers who wait are in `call_rules`, those about jobs that belong together or have a time in `flow_rules`.
"""

from collections.abc import Iterator
from typing import Any

from tests.chaos import call_rules, flow_rules
from tests.chaos.evidence import (
    DEAD_LETTER,
    RECOVERY,
    Evidence,
    Operation,
    Run,
    marker_of,
    needs_of,
    rows_by_marker,
    run_of,
    words_of,
)
from tests.chaos.promise import RULES, SEEING, Violation, asked_to_fail, rule, violation

__all__ = ["Violation", "call_rules", "check", "flow_rules", "overlaps"]


def check(evidence: Evidence) -> list[Violation]:
    return [violation for each in RULES for violation in each(evidence)]


# Durable jobs


@rule
def no_accepted_job_is_lost(evidence: Evidence) -> Iterator[Violation]:
    """Each job whose acceptance was told has one row, and it has ended."""
    for op in evidence.of_kind("job"):
        if op.outcome != "ok":
            continue
        row = evidence.rows.get(str(op.job))
        if row is None:
            yield violation(no_accepted_job_is_lost, f"{op.job} was accepted and is in no row", op.job)
        elif row["state"] not in DEAD_LETTER:
            text = f"{op.job} was accepted and is still {row['state']}"
            yield violation(no_accepted_job_is_lost, text, op.job)


@rule
def no_phantom(evidence: Evidence) -> Iterator[Violation]:
    """Each durable row was asked for, and no more often than that; what was refused with 429 is in no row."""
    asked: dict[str, list[Operation]] = {}
    for op in evidence.of_kind("job", "group"):
        for marker in op.facts.get("members", (op.marker,)):
            asked.setdefault(marker, []).append(op)
    durable = {job: row for job, row in evidence.rows.items() if row["durable"] and not is_recurring(row)}
    for marker, rows in rows_by_marker(durable).items():
        ids = [row["id"] for row in rows]
        if marker in evidence.drops:
            if len(rows) > 1:
                yield violation(no_phantom, f"the file {marker} became {len(rows)} jobs", *ids)
            continue
        possible = [op for op in asked.get(marker, []) if op.told.get("status") != 429]
        if len(rows) > 1 and any(op.facts.get("keyed") for op in possible):
            yield violation(no_phantom, f"{marker}: {len(rows)} rows for one idempotency key", *ids)
        elif len(rows) > len(possible):
            text = f"{marker}: asked for {len(possible)} times and not refused, {len(rows)} rows"
            yield violation(no_phantom, text, *ids)


def is_recurring(row: dict[str, Any]) -> bool:
    return str(row.get("source")).startswith("schedule:")


@rule
def accepted_jobs_can_be_found(evidence: Evidence) -> Iterator[Violation]:
    """Whoever asks for an accepted durable job is never told that there is none."""
    accepted = {op.job: op.ended for op in evidence.of_kind("job") if op.outcome == "ok"}
    for op in evidence.of_kind(*SEEING):
        if op.told.get("status") == 404 and op.began > accepted.get(op.job, float("inf")):
            yield violation(accepted_jobs_can_be_found, f"{op.kind} of {op.job}: 404", op.job)


@rule
def terminal_is_final(evidence: Evidence) -> Iterator[Violation]:
    """Once somebody saw an end, everybody who asks later sees the same end, until somebody asks for another run."""
    for (job, generation), first in _ends_seen(evidence).items():
        row = evidence.rows.get(job)
        state = first.told["state"]
        if row is None:
            if not evidence.faults("forgets", 0, first.ended + RECOVERY):
                yield violation(terminal_is_final, f"{job} had ended and is in no row", job)
        elif row["durable"] and row["generation"] < generation:
            text = f"{job} was seen in generation {generation} and its row says {row['generation']}"
            yield violation(terminal_is_final, text, job)
        elif row["durable"] and row["generation"] == generation and row["state"] != state:
            yield violation(terminal_is_final, f"{job} was seen {state} and its row says {row['state']}", job)


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
            yield violation(an_end_is_not_taken_back, text, op.job)


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
            yield violation(results_are_of_the_last_attempt, text, job)
            continue
        if run.job != job or run.how != "done":
            text = f"the result of {job} is of run {run.id}, which was for {run.job} and ended {run.how}"
            yield violation(results_are_of_the_last_attempt, text, job, run.job)
        if words != [f"{run.id}/{number}" for number in range(len(words))]:
            yield violation(
                results_are_of_the_last_attempt, f"the result of {job} is not whole: {words}", job
            )
        bent = evidence.faults("bends_time", run.began, run.began, RECOVERY)
        if row["started_at"] and run.began < row["started_at"] and not bent:
            early = row["started_at"] - run.began
            text = f"the result of {job} is of a run that began {early:.2f} s before its last attempt did"
            yield violation(results_are_of_the_last_attempt, text, job)


@rule
def attempts_are_bounded(evidence: Evidence) -> Iterator[Violation]:
    """No row shows more attempts than allowed, and code ran no more often, except where Redis forgot the count."""
    handbacks = 3
    for job, row in evidence.rows.items():
        if row["attempt"] > row["max_attempts"]:
            text = f"{job} has had {row['attempt']} attempts of {row['max_attempts']}"
            yield violation(attempts_are_bounded, text, job)
        runs = evidence.runs_of(job)
        if not runs:
            continue
        forgot = len(evidence.faults("forgets", lifetime(row, evidence)[0], runs[-1].began))
        if len(runs) > (row["max_attempts"] + handbacks) * (1 + forgot + row["generation"]):
            text = f"{job} was run {len(runs)} times; generation {row['generation']}, Redis forgot {forgot} times"
            yield violation(attempts_are_bounded, text, job)


@rule
def no_attempt_is_spent_for_nothing(evidence: Evidence) -> Iterator[Violation]:
    """Where no fault could cost a lease or an engine, the first attempt of a job is its last."""
    hooks = evidence.hooks
    for job, row in evidence.rows.items():
        runs = evidence.runs_of(job)
        if row["attempt"] <= 1 and len(runs) <= 1 + row["generation"]:
            continue
        broken = evidence.faults("breaks_runs", *lifetime(row, evidence), RECOVERY)
        asked = runs and asked_to_fail(hooks.get(runs[0].marker, ""))
        if not (broken or asked):
            text = f"{job}: attempt {row['attempt']}, {len(runs)} runs, and nothing was broken"
            yield violation(no_attempt_is_spent_for_nothing, text, job)


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
    hooks = evidence.hooks
    cancels = {op.job for op in evidence.of_kind("cancel")}
    for job, row in evidence.rows.items():
        if not row["durable"]:
            continue
        if row["state"] == "cancelled" and job not in cancels:
            yield violation(failures_have_a_cause, f"{job} is cancelled and nobody asked for that", job)
        elif row["state"] == "expired":
            yield violation(failures_have_a_cause, f"{job} is expired and has no deadline", job)
        elif row["state"] == "failed" and not asked_to_fail(hooks.get(marker_of(row), "")):
            spent = row["attempt"] >= row["max_attempts"]
            known = row["error_code"] in ("engine_load_failed", "replica_stopped")
            known = known or (row["error_code"] == "dependency_failed" and needs_of(row)[0] != [])
            if not (spent or known):
                text = f"{job} failed with {row['error_code']} in attempt {row['attempt']}: {row['error_message']}"
                yield violation(failures_have_a_cause, text, job)


# Cancels


@rule
def a_cancel_is_an_end(evidence: Evidence) -> Iterator[Violation]:
    """Who cancels and is told yes is shown an end. That it stays so, `terminal_is_final` says."""
    for op in evidence.of_kind("cancel"):
        if op.outcome != "ok":
            continue
        if op.told["state"] not in DEAD_LETTER:
            text = f"{op.job} was cancelled and is {op.told['state']}"
            yield violation(a_cancel_is_an_end, text, op.job)


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
                yield violation(nothing_begins_after_its_end, text, op.job)


# Runs


@rule
def runs_do_not_overlap(evidence: Evidence) -> Iterator[Violation]:
    """Code runs for a job a second time only when a fault had ended the trust in the first."""
    for first, second in overlaps(evidence):
        if not evidence.faults("breaks_runs", first.began, second.began):
            text = (
                f"run {second.id} of {first.job} began while run {first.id} went on, and nothing was broken"
            )
            yield violation(runs_do_not_overlap, text, first.job)


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


# Files


@rule
def each_file_comes_back(evidence: Evidence) -> Iterator[Violation]:
    """Each dropped file has one result or one error."""
    for marker in evidence.drops:
        found = evidence.delivered.get(marker, [])
        if len(found) != 1:
            yield violation(
                each_file_comes_back, f"the file {marker} came back as {found}", markers=(marker,)
            )


# Redis and what is left


@rule
def redis_fits_together(evidence: Evidence) -> Iterator[Violation]:
    """Counters, ready sets, leases and states agreed each time that somebody looked."""
    for at, what in evidence.wrong:
        yield violation(redis_fits_together, f"at {at:.1f}: {what}")


@rule
def nothing_is_left(evidence: Evidence) -> Iterator[Violation]:
    """After the last job nothing of it stays: no lease, place, key without end, slot, temporary file or process."""
    for what, names in evidence.left.items():
        yield violation(nothing_is_left, f"{what}: {', '.join(names[:10])}")
