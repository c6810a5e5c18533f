"""Times that come again, also where clocks change."""

from datetime import UTC, datetime

import pytest

from inferq import errors
from inferq.recurrence import Recurrence

BERLIN = "Europe/Berlin"


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def times(cron: str, timezone: str, after: str, count: int = 3) -> list[str]:
    """The next times as ISO texts of UTC, each found anew from the one before."""
    found, moment = [], at(after)
    for _ in range(count):
        following = Recurrence(cron, timezone).after(moment)
        assert following is not None
        moment = following
        found.append(datetime.fromtimestamp(moment, UTC).strftime("%m-%dT%H:%M:%S"))
    return found


def test_times_are_those_of_the_zone() -> None:
    assert times("30 6 * * MON-FRI", BERLIN, "2026-01-02T12:00:00Z") == [
        "01-05T05:30:00",
        "01-06T05:30:00",
        "01-07T05:30:00",
    ]
    assert times("@daily", "UTC", "2026-01-01T00:00:00Z", 2) == ["01-02T00:00:00", "01-03T00:00:00"]


def test_six_fields_begin_with_seconds() -> None:
    assert times("*/20 0 12 * * *", "UTC", "2026-01-01T12:00:00.5Z") == [
        "01-01T12:00:20",
        "01-01T12:00:40",
        "01-02T12:00:00",
    ]


def test_a_time_in_the_gap_runs_right_after_it() -> None:
    assert times("30 2 * * *", BERLIN, "2026-03-28T12:00:00Z") == [
        "03-29T01:00:00",
        "03-30T00:30:00",
        "03-31T00:30:00",
    ]


def test_an_hour_that_comes_twice_runs_once() -> None:
    assert times("30 2 * * *", BERLIN, "2026-10-24T12:00:00Z") == [
        "10-25T00:30:00",
        "10-26T01:30:00",
        "10-27T01:30:00",
    ]


def test_nothing_comes_from_before_while_an_hour_comes_again() -> None:
    # 02:10 for the second time; 02:30 has come once.
    assert times("30 2 * * *", BERLIN, "2026-10-25T01:10:00Z", 1) == ["10-26T01:30:00"]


def test_every_hour_goes_on_in_real_time() -> None:
    assert times("0 * * * *", BERLIN, "2026-10-24T23:30:00Z") == [
        "10-25T00:00:00",
        "10-25T01:00:00",
        "10-25T02:00:00",
    ]


def test_the_next_times_follow_each_other() -> None:
    start = at("2026-01-01T00:00:00Z")
    assert Recurrence("@hourly", "UTC").next_times(start) == [start + 3600, start + 7200, start + 10800]


@pytest.mark.parametrize(
    ("cron", "timezone", "param"),
    [
        ("61 * * * *", "UTC", "cron"),
        ("* * *", "UTC", "cron"),
        ("", "UTC", "cron"),
        ("@reboot", "UTC", "cron"),
        ("0 0 30 2 *", "UTC", "cron"),
        ("0 0 31 4,6 *", "UTC", "cron"),
        ("0 0 * * 0," * 1000, "UTC", "cron"),
        ("@daily", "Mars/Olympus", "timezone"),
        ("@daily", "../../etc/passwd", "timezone"),
        ("@daily", "", "timezone"),
        ("@daily", "a" * 5000, "timezone"),
        ("@daily", "Europe", "timezone"),
        ("@daily", "a\0b", "timezone"),
    ],
)
def test_what_cannot_be_read_or_never_comes_is_refused(cron: str, timezone: str, param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        Recurrence(cron, timezone).check()
    assert caught.value.param == param
