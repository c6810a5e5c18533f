"""What must hold for jobs that wait for a time or for others, that belong together, whose end is told; and for pauses.

Where the clock of a process jumped, what depends on times of day is not judged.
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.chaos.evidence import DEAD_LETTER, RECOVERY, Evidence, Operation, needs_of
from tests.chaos.promise import Violation, rule, violation
from tests.chaos.steward import EVERY

CLOSE = 0.05
"""Seconds by which times of two processes may seem out of order."""


def _bent(evidence: Evidence) -> bool:
    return any(window.kind.bends_time for window in evidence.windows)


@rule
def a_dependent_waits(evidence: Evidence) -> Iterator[Violation]:
    """No run begins before all have ended that its job waits for, and none after one of them has failed it."""
    for job, row in evidence.rows.items():
        needs, on_failure = needs_of(row)
        for need in needs:
            other = evidence.rows.get(need)
            if other is None:
                yield violation(a_dependent_waits, f"{job} waits for {need}, which is in no row", job, need)
            elif other["generation"] == 0:
                yield from _judge_need(row, other, on_failure, evidence)


def _judge_need(
    row: dict[str, Any], other: dict[str, Any], on_failure: str, evidence: Evidence
) -> Iterator[Violation]:
    """`other` ran for one generation only, so it has ended once."""
    job, need = row["id"], other["id"]
    ended = other["finished_at"] or float("inf")
    for run in evidence.runs_of(job):
        if run.began < ended - CLOSE and not _bent(evidence):
            text = f"run {run.id} of {job} began {ended - run.began:.2f} s before {need} ended, which it waits for"
            yield violation(a_dependent_waits, text, job, need)
    broken = other["state"] != "succeeded" and on_failure == "fail" and row["generation"] == 0
    if broken and (row["state"] not in ("failed", "cancelled") or evidence.runs_of(job)):
        text = f"{need} is {other['state']}, and {job}, which needs it to succeed, is {row['state']}"
        yield violation(a_dependent_waits, text, job, need)


@rule
def nothing_runs_before_its_time(evidence: Evidence) -> Iterator[Violation]:
    """A job with a time runs then or later."""
    due = {op.marker: op for op in evidence.of_kind("job") if op.facts.get("due")}
    for run in evidence.runs.values():
        op = due.get(run.marker)
        if op is None or run.began >= op.facts["due"] - CLOSE:
            continue
        if not evidence.faults("bends_time", op.began, run.began, RECOVERY):
            text = f"run {run.id} of {run.job} began {op.facts['due'] - run.began:.2f} s before its time"
            yield violation(nothing_runs_before_its_time, text, run.job)


@rule
def a_group_is_whole(evidence: Evidence) -> Iterator[Violation]:
    """A group is there with all of its jobs or not at all, once, and has ended when they have."""
    members: dict[str, list[dict[str, Any]]] = {name: [] for name in evidence.groups}
    for row in evidence.rows.values():
        if row.get("group_id"):
            members.setdefault(row["group_id"], []).append(row)
    asked: dict[str, list[str]] = {}
    for name, jobs in members.items():
        group = evidence.groups.get(name)
        if group is None or len(jobs) != group["total"]:
            text = f"group {name} has {len(jobs)} jobs of {group and group['total']}"
            yield violation(a_group_is_whole, text, *(row["id"] for row in jobs))
            continue
        asked.setdefault(json.loads(group["metadata"])["marker"], []).append(name)
        if all(row["state"] in DEAD_LETTER for row in jobs) and group["finished_at"] is None:
            yield violation(
                a_group_is_whole, f"all jobs of group {name} have ended, and it has not", jobs[0]["id"]
            )
    for marker, names in asked.items():
        if len(names) > 1:
            yield violation(a_group_is_whole, f"{marker}: {len(names)} groups for one idempotency key")
    for op in evidence.of_kind("group"):
        if op.outcome == "ok" and op.told["group"] not in evidence.groups:
            yield violation(a_group_is_whole, f"group {op.told['group']} was accepted and is in no row")


@rule
def each_end_is_told(evidence: Evidence) -> Iterator[Violation]:
    """Who asked for it is told each job's last end, and that of each group."""
    told = {
        (mail["subject"], mail["generation"], mail["type"]) for mail in evidence.mail if mail["status"] == 200
    }
    for job, row in evidence.rows.items():
        wanted = (job, row["generation"], f"job.{row['state']}")
        if row["durable"] and row.get("webhook") and row["state"] in DEAD_LETTER and wanted not in told:
            yield violation(each_end_is_told, f"nobody was told that {job} is {row['state']}", job)
    for name, group in evidence.groups.items():
        if group["webhook"] and group["finished_at"] and (name, None, "group.finished") not in told:
            yield violation(each_end_is_told, f"nobody was told that group {name} has ended")


@rule
def messages_tell_the_truth(evidence: Evidence) -> Iterator[Violation]:
    """Each message is signed, and of one end there is one message, however often it comes, that says what is so."""
    seen: dict[tuple[str, int | None], tuple[str, str]] = {}
    for mail in evidence.mail:
        end, subject = (mail["subject"], mail["generation"]), mail["subject"]
        if not mail["signed"]:
            yield violation(messages_tell_the_truth, f"message {mail['id']} has a wrong signature", subject)
        this = (mail["id"], mail["type"])
        if seen.setdefault(end, this) != this:
            text = f"of {subject}, generation {end[1]}, there are two messages: {seen[end]} and {this}"
            yield violation(messages_tell_the_truth, text, subject)
        row = evidence.rows.get(subject)
        if row and row["generation"] == end[1] and mail["type"] != f"job.{row['state']}":
            text = f"a message said {mail['type']} of {subject}, whose row says {row['state']}"
            yield violation(messages_tell_the_truth, text, subject)


@rule
def a_schedule_comes_once(evidence: Evidence) -> Iterator[Violation]:
    """Each schedule that was made has run, and at each of its times at most once."""
    times: dict[str, list[float]] = {
        op.facts["tenant"]: [] for op in evidence.of_kind("schedule") if op.outcome == "ok"
    }
    for row in evidence.rows.values():
        if str(row.get("source")).startswith("schedule:"):
            times.setdefault(row["tenant"], []).append(row["due_at"] or row["created_at"])
    if _bent(evidence):
        return
    for tenant, found in times.items():
        if not found:
            yield violation(a_schedule_comes_once, f"the schedule of {tenant} has never run")
        slots: dict[int, float] = {}
        for at in sorted(found):
            slot, into = divmod(at, EVERY)
            first = slots.setdefault(int(slot), into)
            # What was looked at just before a time and written just after it counts for the time before.
            if first != into and first > CLOSE:
                text = f"the schedule of {tenant} has run twice within {EVERY} s, {into - first:.2f} s apart"
                yield violation(a_schedule_comes_once, text)


@rule
def a_pause_holds(evidence: Evidence) -> Iterator[Violation]:
    """Between the answer that says that a pause is in force and the next resume, nothing of it is claimed."""
    for op in evidence.of_kind("pause"):
        if op.outcome != "ok" or not op.told["in_force"]:
            continue
        until = _resumed(op, evidence)
        if evidence.faults("forgets", op.began, until, RECOVERY) or _bent(evidence):
            continue
        column, name = op.facts["what"], op.facts["name"]
        for job, row in evidence.rows.items():
            if row.get(column) == name and op.ended < (row["started_at"] or 0.0) < until:
                after = row["started_at"] - op.ended
                yield violation(
                    a_pause_holds, f"{job} was claimed {after:.2f} s after {column} {name} was paused", job
                )


def _resumed(pause: Operation, evidence: Evidence) -> float:
    later = [op.began for op in evidence.of_kind("resume") if op.facts["name"] == pause.facts["name"]]
    return min((began for began in later if began > pause.ended), default=float("inf"))
