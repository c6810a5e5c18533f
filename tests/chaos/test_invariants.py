"""The checker has teeth: each rule is shown a history that breaks it, and only that rule speaks."""

import json
from typing import Any

import pytest

from tests.chaos.catalogue import FAULTS
from tests.chaos.evidence import Evidence, Operation, Run, Window, gather
from tests.chaos.invariants import check
from tests.chaos.report import timeline

INF = float("inf")


def operation(kind: str, **more: Any) -> Operation:
    """Asked at 100, told at 101 that it went well."""
    facts = {"marker": "m", "hooks": "", "model": "wide", "job": "j"} | more.pop("facts", {})
    told = {"job": "j"} | more.pop("told", {})
    usual: dict[str, Any] = {"id": f"c-{kind}-{id(facts)}", "began": 100.0, "ended": 101.0, "outcome": "ok"}
    return Operation(**(usual | more), kind=kind, facts=facts, told=told)


def row(**more: Any) -> dict[str, Any]:
    """A durable job that has succeeded."""
    content = {"choices": [{"message": {"content": "r/0 r/1"}}]}
    return {
        "id": "j", "durable": 1, "kept": 1, "state": "succeeded", "generation": 0, "attempt": 1, "max_attempts": 3,
        "metadata": json.dumps({"marker": "m"}), "result": json.dumps(content), "created_at": 100.0,
        "queued_at": 100.0, "started_at": 101.5, "finished_at": 103.0, "error_code": None, "error_message": None,
        "replica": "wide@cpu:0", "in_queue": 1, "model": "wide", "tenant": "alice", "lane": "low",
        "source": "key:alice", "depends_on": "null", "due_at": None, "webhook": None, "group_id": None,
    } | more  # fmt: skip


def run(name: str = "r", **more: Any) -> Run:
    usual: dict[str, Any] = {"job": "j", "marker": "m", "began": 102.0, "pid": 1, "model": "wide"}
    return Run(name, **(usual | {"ended": 102.5, "how": "done"} | more))


def fault(name: str, began: float = 100.0, ended: float = 103.0) -> Window:
    return Window(FAULTS[name], 1, began, ended, "it")


def history(
    *operations: Operation,
    rows: tuple[dict[str, Any], ...] = (row(),),
    runs: tuple[Run, ...] = (run(),),
    faults: tuple[Window, ...] = (),
    **more: Any,
) -> Evidence:
    found = Evidence(windows=list(faults), **more)
    found.operations = {op.id: op for op in (operations or (operation("job"),))}
    found.rows = {each["id"]: each for each in rows}
    found.runs = {each.id: each for each in runs}
    return found


def broken(evidence: Evidence) -> set[str]:
    return {violation.rule for violation in check(evidence)}


def test_a_good_history() -> None:
    look = operation("look", began=104.0, ended=105.0, told={"state": "succeeded", "generation": 0})
    assert check(history(operation("job"), look)) == []


UNKNOWN = operation("job", outcome="unknown", told={"job": None, "why": "ReadError"}, facts={"job": None})


def test_an_unknown_outcome_counts_against_nobody() -> None:
    assert broken(history(UNKNOWN)) == set()
    assert broken(history(UNKNOWN, rows=(), runs=())) == set()


KEYED = operation("job", facts={"keyed": True})
AGAIN = operation("job", facts={"keyed": True}, outcome="unknown", told={"job": None, "why": "ReadError"})
FORGOT = (fault("lose-redis"),)
SECOND = row(id="k", result=None, state="failed", attempt=1, max_attempts=1)
LEFT_OVER = row(state="cancelled", durable=0, attempt=1, error_code="caller_gone")
LEFT = {"text": "r/0", "end": "left"}
WAITS = json.dumps({"ids": ["n"], "on_failure": "fail"})
DEPENDENT = row(depends_on=WAITS)
NEED = row(id="n", kept=0, metadata=json.dumps({"marker": "n"}), finished_at=101.9)
ASKED = (operation("job"), operation("job", facts={"marker": "n", "job": "n"}, told={"job": "n"}))
ASKED_FAILING = (
    operation("job"),
    operation("job", facts={"marker": "n", "job": "n", "hooks": "!error"}, told={"job": "n"}),
)
BROKEN_NEED = NEED | {"state": "failed", "error_code": "engine_error"}
NOT_RUN = {
    "state": "failed",
    "error_code": "dependency_failed",
    "attempt": 0,
    "started_at": None,
    "result": None,
}
GROUP = {
    "id": "g",
    "total": 2,
    "finished_at": 104.0,
    "webhook": None,
    "metadata": json.dumps({"marker": "group-m"}),
}
IN_GROUP = operation("group", facts={"marker": "group-m", "members": {"m": "", "n": ""}, "keyed": True, "job": None},
                     told={"group": "g", "job": None})  # fmt: skip
MEMBERS = (row(group_id="g"), NEED | {"group_id": "g"})
MAIL = {
    "id": "w",
    "type": "job.succeeded",
    "subject": "j",
    "generation": 0,
    "signed": True,
    "status": 200,
    "at": 103.1,
}
SCHEDULE = operation(
    "schedule", facts={"tenant": "alice", "job": None, "marker": "x"}, told={"job": None, "in_force": None}
)
RECURRING = row(source="schedule:chaos", due_at=101.0)
PAUSE = operation(
    "pause",
    facts={"what": "model", "name": "wide", "job": None, "marker": "x"},
    told={"in_force": True, "job": None},
)
NOT_FOUND = {"status": 404, "code": "job_not_found"}
STILL_RUNNING = operation("cancel", told={"state": "running", "generation": 0})
OTHERS = operation("call", told={"text": "r/0 r/1"}, facts={"marker": "n"})
FULL = operation("job", outcome="refused", told={"status": 429, "code": "queue_full", "message": "full"})
ENDED = operation("look", told={"state": "succeeded", "generation": 0}, began=104.0, ended=105.0)
CANCELLED = operation("cancel", told={"state": "cancelled", "generation": 0})
CALL = {"kind": "call", "told": {"text": "r/0 r/1"}}
STREAM = {"kind": "stream", "facts": {"hooks": "!tokens=2 !interval=0"}}


@pytest.mark.parametrize(
    ("rule", "evidence"),
    [
        ("no_accepted_job_is_lost", history(rows=(), runs=())),
        ("no_accepted_job_is_lost", history(rows=(row(state="queued", result=None),))),
        ("no_phantom", history(rows=(row(), SECOND))),
        ("no_phantom", history(FULL)),
        ("no_phantom", history(KEYED, AGAIN, rows=(row(), SECOND))),
        ("no_phantom", history(rows=(row(metadata=None),), runs=(run(),))),
        (
            "accepted_jobs_can_be_found",
            history(
                operation("job"),
                operation("look", began=102.0, ended=103.0, outcome="refused", told=NOT_FOUND),
            ),
        ),
        ("terminal_is_final", history(operation("job"), ENDED, rows=(row(state="failed", attempt=1, max_attempts=1),))),
        ("terminal_is_final", history(operation("job"), CANCELLED)),
        (
            "an_end_is_not_taken_back",
            history(
                operation("job"),
                ENDED,
                operation("look", told={"state": "queued", "generation": 0}, began=106.0, ended=107.0),
            ),
        ),
        ("results_are_of_the_last_attempt", history(rows=(row(started_at=102.1),))),
        ("results_are_of_the_last_attempt", history(runs=())),
        ("results_are_of_the_last_attempt", history(runs=(run(how="cancelled"),))),
        ("results_are_of_the_last_attempt", history(runs=(run(job="other"),))),
        ("attempts_are_bounded", history(rows=(row(attempt=4),), faults=(fault("kill-engine"),))),
        (
            "attempts_are_bounded",
            history(
                runs=(run(), *(run(str(i), began=90.0 - i, ended=90.5 - i, how="cancelled") for i in range(6))),
                faults=(fault("kill-engine"),),
            ),
        ),
        ("no_attempt_is_spent_for_nothing", history(rows=(row(attempt=2),))),
        ("no_attempt_is_spent_for_nothing", history(rows=(row(attempt=2),), faults=(fault("cut"),))),
        ("failures_have_a_cause", history(rows=(row(state="failed", error_code="engine_crashed"),))),
        ("failures_have_a_cause", history(rows=(row(state="cancelled"),))),
        ("a_cancel_is_an_end", history(operation("job"), STILL_RUNNING)),
        (
            "nothing_begins_after_its_end",
            history(operation("job"), CANCELLED, rows=(row(state="cancelled"),), runs=(run(began=110.0),)),
        ),
        ("runs_do_not_overlap", history(runs=(run(), run("s", began=102.2, ended=103.0)), rows=(row(generation=1),))),
        ("each_call_is_answered_once", history(operation("job"), OTHERS)),
        ("each_call_is_answered_once", history(operation(**CALL), runs=(run(job="x"),), rows=(), faults=FORGOT)),
        ("each_call_is_answered_once", history(operation("call", outcome="open", ended=INF), rows=(), runs=())),
        (
            "each_call_is_answered_once",
            history(operation("call", outcome="unknown", told={"why": "ReadError"}), rows=(), runs=()),
        ),
        (
            "each_call_is_answered_once",
            history(operation(**STREAM, told={"text": "r/0 r/2", "end": "error x"}), rows=()),
        ),
        ("streams_end_as_they_should", history(operation(**STREAM, told={"text": "r/0", "end": "done"}), rows=())),
        ("streams_end_as_they_should", history(operation(**STREAM, told={"text": "r/0", "end": "cut"}), rows=())),
        (
            "refusals_are_known",
            history(
                operation("call", outcome="refused", told={"status": 500, "code": "internal_error", "message": "x"}),
                rows=(),
                runs=(),
                faults=(fault("kill-engine"),),
            ),
        ),
        (
            "refusals_are_known",
            history(
                operation("call", outcome="refused", told={"status": 503, "code": "redis_lost", "message": "x"}),
                rows=(),
                runs=(),
            ),
        ),
        ("calls_are_on_record", history(operation(**CALL), rows=())),
        ("calls_are_on_record", history(operation(**CALL), rows=(row(state="failed", durable=0, attempt=1),))),
        ("calls_are_on_record", history(operation(**CALL), rows=(LEFT_OVER,))),
        (
            "calls_are_on_record",
            history(operation(**CALL), rows=(LEFT_OVER | {"finished_at": 100.9},), faults=FORGOT),
        ),
        (
            "calls_are_on_record",
            history(operation("kept", told=LEFT), rows=(), faults=(fault("wipe-redis", 104.0, 105.0),)),
        ),
        ("calls_are_on_record", history(operation("kept", told=LEFT), rows=(row(state="cancelled", durable=0),))),
        ("each_file_comes_back", history(drops={"f": 100.0})),
        ("each_file_comes_back", history(drops={"f": 100.0}, delivered={"f": ["processed/f", "errors/f"]})),
        ("a_dependent_waits", history(*ASKED, rows=(DEPENDENT, NEED | {"finished_at": 102.4}))),
        ("a_dependent_waits", history(rows=(DEPENDENT,))),
        ("a_dependent_waits", history(*ASKED_FAILING, rows=(DEPENDENT, BROKEN_NEED))),
        (
            "nothing_runs_before_its_time",
            history(operation("job", facts={"due": 102.5})),
        ),
        ("a_group_is_whole", history(IN_GROUP, rows=MEMBERS[:1], groups={"g": GROUP})),
        ("a_group_is_whole", history(IN_GROUP, rows=(), runs=())),
        ("a_group_is_whole", history(IN_GROUP, rows=MEMBERS, groups={"g": GROUP | {"finished_at": None}})),
        ("a_group_is_whole", history(IN_GROUP, rows=MEMBERS, groups={"g": GROUP, "h": GROUP | {"total": 0}})),
        ("each_end_is_told", history(rows=(row(webhook="http"),))),
        ("each_end_is_told", history(rows=(row(webhook="http"),), mail=[MAIL | {"status": 500}])),
        ("each_end_is_told", history(rows=(row(webhook="http", generation=1),), mail=[MAIL])),
        ("each_end_is_told", history(IN_GROUP, rows=MEMBERS, groups={"g": GROUP | {"webhook": "http"}})),
        ("messages_tell_the_truth", history(mail=[MAIL | {"signed": False}])),
        ("messages_tell_the_truth", history(mail=[MAIL, MAIL | {"id": "v"}])),
        ("messages_tell_the_truth", history(mail=[MAIL | {"type": "job.failed"}])),
        ("a_schedule_comes_once", history(SCHEDULE, rows=(), runs=())),
        (
            "a_schedule_comes_once",
            history(SCHEDULE, rows=(RECURRING, RECURRING | {"id": "k", "kept": 0, "due_at": 103.0})),
        ),
        ("a_pause_holds", history(operation("job"), PAUSE)),
        ("redis_fits_together", history(wrong=[(100.0, "n:high says 2")])),
        ("nothing_is_left", history(left={"processes": ["python -m workers"]})),
    ],
)  # fmt: skip
def test_a_broken_promise_is_seen_and_no_other(rule: str, evidence: Evidence) -> None:
    assert broken(evidence) == {rule}


@pytest.mark.parametrize(
    ("evidence"),
    [
        history(rows=(row(attempt=2),), faults=(fault("kill-replica"),)),
        history(
            runs=(run(), run("s", began=102.2, ended=103.0)),
            rows=(row(attempt=2),),
            faults=(fault("freeze-replica"),),
        ),
        history(
            operation("call", outcome="unknown", told={"why": "ReadError"}),
            rows=(),
            runs=(),
            faults=(fault("kill-api"),),
        ),
        history(
            operation("call", outcome="refused", told={"status": 503, "code": "redis_lost", "message": "x"}),
            rows=(),
            runs=(),
            faults=(fault("wipe-redis"),),
        ),
        history(
            rows=(row(state="failed", attempt=3, error_code="replica_lost"),), faults=(fault("kill-replica"),)
        ),
        history(operation("job"), PAUSE, faults=(fault("wipe-redis"),)),
        history(
            operation("kept", told=LEFT),
            rows=(),
            runs=(run(ended=104.5),),
            faults=(fault("wipe-redis", 104.0, 105.0),),
        ),
        history(operation(**CALL), rows=(LEFT_OVER,), faults=FORGOT),
        history(operation("job", facts={"due": 102.5}), faults=(fault("jumping-clock"),)),
        history(*ASKED, rows=(DEPENDENT, NEED)),
        history(*ASKED_FAILING, rows=(DEPENDENT | NOT_RUN, BROKEN_NEED), runs=()),
        history(IN_GROUP, rows=MEMBERS, groups={"g": GROUP}, mail=[MAIL, MAIL]),
        history(SCHEDULE, rows=(RECURRING, RECURRING | {"id": "k", "kept": 0, "due_at": 104.5})),
        history(operation("job"), PAUSE, operation("resume", facts=PAUSE.facts, began=101.2, ended=101.3)),
    ],
)
def test_what_a_fault_excuses(evidence: Evidence) -> None:
    assert broken(evidence) == set()


def test_journals_become_evidence() -> None:
    evidence = gather(
        [
            {"at": 1.0, "actor": "c", "event": "invoke", "op": "c-1", "kind": "job", "marker": "m"},
            {"at": 1.5, "actor": "nemesis", "event": "inject", "fault": "kill-api", "number": 1, "what": "api-1"}
            | {"began": 1.4},
            {"at": 1.6, "actor": "nemesis", "event": "heal", "fault": "kill-api", "number": 1},
            {"at": 2.0, "actor": "c", "event": "ok", "op": "c-1", "job": "j"},
            {"at": 2.1, "actor": "sink", "event": "begin", "run": "r", "job": "j", "marker": "m", "pid": 7}
            | {"model": "wide"},
            {"at": 2.2, "actor": "sink", "event": "end", "run": "r", "how": "done"},
            {"at": 3.0, "actor": "c", "event": "invoke", "op": "c-2", "kind": "call", "marker": "n"},
        ]
    )  # fmt: skip
    assert evidence.operations["c-1"].job == "j"
    assert evidence.operations["c-2"].outcome == "open"
    assert (evidence.runs["r"].how, evidence.runs["r"].pid) == ("done", 7)
    assert evidence.windows[0].kind is FAULTS["kill-api"]
    told = [line.partition(" ")[2] for line in timeline(evidence, "j")]
    assert [line.split()[0] for line in told] == ["c-1", "**", "**", "c-1", "run", "run"]
