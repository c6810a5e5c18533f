"""How the benchmark of recovery reads what a run has left."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks import recovery
from benchmarks.recovery import Kill, Roll
from benchmarks.stack import Broken
from tests.chaos.evidence import Evidence, gather
from tests.chaos.history import Event
from tests.chaos.site import Site

ENGINE, OTHER = 7, 8
KILL = Kill(100.0, frozenset({ENGINE}))


def begin(run: str, at: float, pid: int = ENGINE) -> Event:
    return {
        "event": "begin", "actor": "sink", "run": run, "job": "j", "marker": "m", "at": at, "pid": pid, "model": "wide",
    }  # fmt: skip


def end(run: str, at: float, how: str) -> Event:
    return {"event": "end", "actor": "sink", "run": run, "at": at, "how": how}


def evidence_of(*events: Event, state: str = "succeeded", finished: float = 110.0) -> Evidence:
    found = gather(list(events))
    found.rows = {"j": {"state": state, "finished_at": finished}}
    return found


def roll_of(*calls: tuple[float, dict[str, int]]) -> Roll:
    roll = Roll(cast("Site", None))
    roll.calls += calls
    return roll


def test_the_way_of_a_lost_run_is_split() -> None:
    evidence = evidence_of(begin("a", 99.0), end("a", 100.1, "cancelled"), begin("b", 104.5, OTHER))
    roll = roll_of((101.0, {"wide": 0}), (102.5, {"wide": 1}), (103.5, {"wide": 2}))
    made = recovery.result(evidence, [KILL], [("j", 90.0), ("x", 101.0), ("j", 103.0)], roll)
    assert made.value == 4.5
    (run,) = cast("Any", made.details["runs"])
    assert (run["s"], run["queued"], run["started"], run["ended"], run["ready"]) == (4.5, 3.0, 4.5, 10.0, 1)


def test_the_end_counts_where_no_other_run_began() -> None:
    made = recovery.result(
        evidence_of(begin("a", 99.0), state="failed", finished=103.2), [KILL], [], roll_of()
    )
    assert made.value == 3.2


@pytest.mark.parametrize("how", ["done", "failed"])
def test_a_run_that_had_ended_is_not_lost(how: str) -> None:
    """Its job may run again much later, because its caller asks for that."""
    evidence = evidence_of(begin("a", 98.0), end("a", 99.0, how), begin("b", 160.0, OTHER), finished=161.0)
    with pytest.raises(Broken):
        recovery.result(evidence, [KILL], [], roll_of())


def test_nor_is_one_elsewhere_or_one_that_was_cancelled() -> None:
    assert not list(recovery.lost_runs(evidence_of(begin("a", 99.0, OTHER)), KILL))
    assert not list(
        recovery.lost_runs(evidence_of(begin("a", 99.0), state="cancelled", finished=100.5), KILL)
    )
    assert list(recovery.lost_runs(evidence_of(begin("a", 99.0), begin("b", 103.0), state="cancelled"), KILL))


def test_the_schedulers_tell_when_a_job_is_handed_on(tmp_path: Path) -> None:
    site = SimpleNamespace(log=lambda name: (tmp_path / name).read_text())
    (tmp_path / "scheduler-1").write_text(
        "2026-11-22 04:30:48,313 WARNING queues.scheduler: job j lost its replica: queued\n"
        "2026-11-22 04:30:49,313 WARNING queues.scheduler: job k lost its replica: failed\n"
    )
    (tmp_path / "scheduler-2").write_text(
        "2026-11-22 04:30:50,000 INFO queues.scheduler: this scheduler leads\n"
    )
    (j, first), (k, second) = recovery.handed_on(cast("Site", site))
    assert (j, k, round(second - first, 3)) == ("j", "k", 1.0)
