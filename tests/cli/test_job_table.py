"""What the table of jobs says under WHEN."""

import time
from typing import Any

import pytest

from inferq.cli import job_table

JOB: dict[str, Any] = {
    "id": "0192d3c5-0000-7000-8000-000000000000",
    "model": "demo-chat",
    "lane": "medium",
    "state": "running",
    "created_at": None,
    "started_at": None,
    "finished_at": None,
    "position": None,
    "eta_seconds": None,
    "progress": None,
}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"started_at": 100.0, "created_at": 50.0}, "20 m 0 s"),
        ({"started_at": 100.0, "created_at": 50.0, "progress": 0.25}, "25% 20 m 0 s"),
        ({"created_at": 100.0}, "20 m 0 s"),
        ({"created_at": 100.0, "progress": 0.5}, "50% 20 m 0 s"),
    ],
)
def test_when_of_a_job_that_runs(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], shown: str) -> None:
    monkeypatch.setattr(time, "time", lambda: 1300.0)
    table = job_table.render([{**JOB, **given}])  # type: ignore[list-item]
    assert list(table.columns[-1].cells) == [shown]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"due_at": 11500.0}, "in 2 h 50 m"),
        ({"due_at": 11500.0, "depends_on": ["x"]}, "in 2 h 50 m, after other jobs"),
        ({"due_at": 1000.0, "depends_on": ["x"]}, "after other jobs"),
        ({"created_at": 1000.0}, "5 m 0 s ago"),
    ],
)
def test_when_of_a_job_that_is_scheduled(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], shown: str
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1300.0)
    table = job_table.render([{**JOB, "state": "scheduled", **given}])  # type: ignore[list-item]
    assert list(table.columns[-1].cells) == [shown]
