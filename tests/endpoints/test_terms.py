"""When a job runs, as an envelope states it."""

from typing import Any

import pytest

from inferq import errors
from inferq.job import OnDependencyFailure, new_job_id
from inferq.terms import FARTHEST, MOST_NEEDS, Terms, terms_of

NOW = 1_790_000_000.0
"""2026-09-21T14:13:20Z"""


def test_an_envelope_that_states_nothing_runs_at_once() -> None:
    assert terms_of({"model": "x", "run_at": None}, now=NOW) == Terms()


@pytest.mark.parametrize(
    "written",
    [NOW + 60, int(NOW) + 60, "2026-09-21T14:14:20Z", "2026-09-21T16:14:20+02:00", "20260921T141420+00:00"],
)
def test_a_time_is_written_with_a_zone_or_as_unix_seconds(written: Any) -> None:
    assert terms_of({"run_at": written}, now=NOW).due_at == NOW + 60
    assert terms_of({"expires_at": written}, now=NOW).expires_at == NOW + 60


@pytest.mark.parametrize("past", [0, 1, NOW, "2001-01-01T00:00:00Z"])
def test_a_time_that_has_passed_is_now(past: Any) -> None:
    assert terms_of({"run_at": past}, now=NOW).due_at is None


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), (7.5, 7.5), ("3", 3)]
)
def test_an_end_may_be_a_duration_from_now(written: Any, seconds: float) -> None:
    assert terms_of({"expires_in": written}, now=NOW).expires_at == NOW + seconds


def test_dependencies_and_what_their_failure_means() -> None:
    ids = [new_job_id(), new_job_id()]
    terms = terms_of({"depends_on": ids, "on_dependency_failure": "run"}, now=NOW)
    assert (terms.depends_on, terms.on_dependency_failure) == (tuple(ids), OnDependencyFailure.RUN)
    assert terms_of({"depends_on": ids}, now=NOW).on_dependency_failure is OnDependencyFailure.FAIL


_ID = new_job_id()


@pytest.mark.parametrize(
    ("found", "param", "told"),
    [
        ({"run_at": "2026-12-31T18:00:00"}, "run_at", "add Z"),
        ({"run_at": "2026-12-31"}, "run_at", "add Z"),
        ({"run_at": "tomorrow"}, "run_at", "2026-12-31T18:00:00Z"),
        ({"run_at": "1790000000"}, "run_at", "Unix seconds"),
        ({"run_at": ""}, "run_at", "is no time"),
        ({"run_at": True}, "run_at", "got a boolean"),
        ({"run_at": {}}, "run_at", "got an object"),
        ({"run_at": -1}, "run_at", "before 1970"),
        ({"run_at": "0001-01-01T00:00:00+14:00"}, "run_at", "run_at"),
        ({"run_at": NOW * 1000}, "run_at", "in seconds"),
        ({"run_at": 1e300}, "run_at", "in seconds"),
        ({"run_at": "9999-12-31T23:59:59Z"}, "run_at", "ten years"),
        ({"expires_at": NOW}, "expires_at", "has passed"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at", "has passed"),
        ({"run_at": NOW + 60, "expires_at": NOW + 60}, "expires_at", "before its 'run_at'"),
        ({"run_at": NOW + 7200, "expires_in": "1h"}, "expires_in", "before its 'run_at'"),
        ({"expires_at": NOW + 1, "expires_in": 1}, "expires_in", "give one"),
        ({"expires_in": 0}, "expires_in", "more than 0 s"),
        ({"expires_in": "-5m"}, "expires_in", "write it like"),
        ({"expires_in": "5 weeks"}, "expires_in", "units"),
        ({"expires_in": FARTHEST * 2}, "expires_in", "ten years"),
        ({"depends_on": _ID}, "depends_on", "expected an array"),
        ({"depends_on": [1]}, "depends_on[0]", "expected a string"),
        ({"depends_on": [_ID.upper()]}, "depends_on[0]", "no id of a job"),
        ({"depends_on": [_ID, "#0"]}, "depends_on[1]", "no id of a job"),
        ({"depends_on": [_ID, _ID]}, "depends_on", "twice"),
        ({"depends_on": [new_job_id() for _ in range(MOST_NEEDS + 1)]}, "depends_on", "more than 100"),
        ({"on_dependency_failure": "stop"}, "on_dependency_failure", "'fail', 'run'"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused_with_advice(found: Any, param: str, told: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=told.replace("[", r"\[")) as caught:
        terms_of(found, now=NOW)
    assert caught.value.param == param
