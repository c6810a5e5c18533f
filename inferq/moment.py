"""Points in time as people write them: `2h` ago, `2026-11-21T10:00Z`, Unix seconds. Pure."""

import math
from datetime import UTC, datetime
from typing import Any

from inferq import errors
from inferq.config.units import parse_duration

LATEST = 253_402_300_799.0
"""The last second of the year 9999."""


def parse_moment(value: Any, now: float, *, param: str) -> float:
    """Unix seconds for Unix seconds, a date and time (UTC where it names no offset), or a duration before `now`.

    Raises InvalidRequest.
    """
    moment = _number(value)
    if moment is None and isinstance(value, str):
        moment = _date(value.strip())
        if moment is None:
            moment = _ago(value, now)
    if moment is None or not 0 <= moment <= LATEST:
        raise errors.InvalidRequest(
            f"'{param}' must be a time such as 2h (ago), 2026-11-21T10:00:00Z or Unix seconds, "
            f"not {str(value)[:40]!r}.",
            param=param,
        )
    return moment


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _date(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _ago(text: str, now: float) -> float | None:
    try:
        seconds = parse_duration(text)
    except (ValueError, OverflowError):
        return None
    return max(now - seconds, 0.0) if math.isfinite(seconds) else None
