"""What must hold for those who wait for an answer on their connection, and for every error answer."""

from collections.abc import Iterator

from tests.chaos.evidence import RECOVERY, Evidence, Operation, run_of
from tests.chaos.promise import SEEING, Violation, asked_to_fail, rule, violation

KNOWN_REFUSALS = {
    429: {"queue_full"},
    499: {"caller_gone", "cancelled"},
    502: {"stream_broken", "replica_lost", "engine_crashed", "engine_error"},
    503: {
        "queue_unavailable", "store_unavailable", "redis_lost", "replica_stopped", "lease_lost", "engine_load_failed",
        "server_stopping", "engine_unavailable",
    },
    504: {"engine_timeout", "timeout"},
}  # fmt: skip
"""Error answers that a caller may get while something is broken. 404 and 400 are nobody's fault here."""


BEHIND = 5.0
"""Seconds that the recorder may be behind after a fault: a database that was away is asked again after a pause."""
STOPPING = 6.0
"""Seconds that an api process may take from SIGTERM to its end."""


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
            yield violation(each_call_is_answered_once, text, op.job)
        elif words != [f"{run.id}/{number}" for number in range(len(words))]:
            text = f"{op.id}: its words are not in order: {words}"
            yield violation(each_call_is_answered_once, text, op.job)
        elif op.kind == "call" and run.how != "done":
            text = f"{op.id} has the whole answer of a run that ended {run.how}"
            yield violation(each_call_is_answered_once, text, op.job)


def _api_was_broken(op: Operation, evidence: Evidence) -> bool:
    """A stop takes as long as its drain; a connection is refused until the next process listens."""
    after = RECOVERY if "ConnectError" in str(op.told.get("why")) else STOPPING
    return bool(evidence.faults("breaks_calls", op.began, op.ended, after))


def _judge_end(op: Operation, evidence: Evidence) -> Iterator[Violation]:
    if op.outcome == "open":
        yield violation(each_call_is_answered_once, f"{op.id} was never answered", op.job)
    elif op.outcome == "unknown" and not _api_was_broken(op, evidence):
        text = f"{op.id} lost its connection and no api was broken: {op.told['why']}"
        yield violation(each_call_is_answered_once, text, op.job)


@rule
def streams_end_as_they_should(evidence: Evidence) -> Iterator[Violation]:
    """A stream ends with [DONE] after all its words, or with an error event."""
    for op in evidence.of_kind("stream"):
        if op.outcome != "ok":
            continue
        words, end = op.told["text"].split(), op.told["end"]
        if end == "cut" and not _api_was_broken(op, evidence):
            text = f"{op.id}: the stream ended without [DONE] or an error"
            yield violation(streams_end_as_they_should, text, op.job)
        wanted = int(str(op.facts["hooks"]).partition("!tokens=")[2].split()[0])
        if end == "done" and len(words) != wanted:
            text = f"{op.id}: [DONE] after {len(words)} of {wanted} words"
            yield violation(streams_end_as_they_should, text, op.job)


@rule
def refusals_are_known(evidence: Evidence) -> Iterator[Violation]:
    """Error answers are those of the table, have a code and a message, and come only while something is broken."""
    for op in evidence.operations.values():
        if op.outcome != "refused":
            continue
        status, code = op.told["status"], op.told["code"]
        if op.kind in SEEING and (status == 404 or (op.kind == "retry" and status == 409)):
            continue  # 404 is judged elsewhere: what is only in Redis may be gone
        if op.kind == "schedule" and status == 409:
            continue  # made by a try that had no answer
        failing = asked_to_fail(str(op.facts.get("hooks")))
        if code not in KNOWN_REFUSALS.get(status, ()) and not failing:
            text = f"{op.id}: {status} {code}: {op.told['message']}"
            yield violation(refusals_are_known, text, op.job, markers=(op.marker,))
        elif not failing and status >= 500 and not evidence.any_fault(op.began, op.ended):
            text = f"{op.id}: {status} {code} with nothing broken: {op.told['message']}"
            yield violation(refusals_are_known, text, op.job, markers=(op.marker,))


def _over(op: Operation, evidence: Evidence) -> float:
    """When the work of a call was over, which may be after its caller has left; broken off, it may wait to go on."""
    ends = [op.ended]
    ends += [
        (run.ended or run.began) + (0.0 if run.how == "done" else RECOVERY)
        for run in evidence.runs_of(str(op.job))
    ]
    return max(ends)


@rule
def calls_are_on_record(evidence: Evidence) -> Iterator[Violation]:
    """A call that was answered, and work that was to be kept, has ended in SQL, except where Redis forgot it before."""
    cancels = {op.job for op in evidence.of_kind("cancel")}
    for op in evidence.of_kind("call", "kept"):
        if op.outcome != "ok":
            continue
        row = evidence.rows.get(str(op.job))
        over = _over(op, evidence)
        until = over + (BEHIND if evidence.any_fault(op.began, over) else 0.0)
        forgotten = evidence.faults("forgets", op.began, until, RECOVERY)
        if row is None:
            if not forgotten:
                yield violation(calls_are_on_record, f"{op.id}: {op.job} is in no row", op.job)
        elif op.kind == "call" and row["state"] != "succeeded":
            if forgotten and (row["finished_at"] or 0.0) > op.ended:
                continue  # its end was forgotten, so its lease ran out, and nobody waited for it any more
            text = f"{op.id}: {op.job} was answered and its row says {row['state']}"
            yield violation(calls_are_on_record, text, op.job)
        elif row["state"] == "cancelled" and op.job not in cancels:
            text = f"{op.id}: {op.job} was to be kept and is cancelled, which nobody asked for"
            yield violation(calls_are_on_record, text, op.job)
