"""What an envelope says about its job beside the request: when it runs, what it waits for, who is told. Pure."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from inferq import errors
from inferq.config.units import parse_duration
from inferq.endpoints import fields
from inferq.endpoints.fields import ARRAY, NUMBER, STRING, Field, wrong_type
from inferq.job import OnDependencyFailure, is_job_id
from inferq.webhooks import WEBHOOK

MOST_NEEDS = 100
"""Jobs that one may wait for."""
FARTHEST = 3660 * 86_400.0
"""Seconds ahead, ten years: what lies behind is a time in milliseconds."""

_ADVICE = "write it like 2026-12-31T18:00:00Z, or as Unix seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """`due_at` is None for a job that may run at once, and so is `expires_at` for one that may wait for ever."""

    due_at: float | None = None
    expires_at: float | None = None
    depends_on: tuple[str, ...] = ()
    on_dependency_failure: OnDependencyFailure = OnDependencyFailure.FAIL
    webhook: str | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of JobSpec that these are."""
        return {name: getattr(self, name) for name in self.__slots__}


def instant(value: Any, path: str) -> float:
    """Unix seconds of a time as people write it. Raises InvalidRequest, also for one ten years ahead."""
    moment = _moment(value, path)
    if not 0 <= moment <= time.time() + FARTHEST:
        far = "more than ten years ahead; Unix times are in seconds" if moment > 0 else "before 1970"
        raise errors.InvalidRequest(f"Invalid '{path}': {value!r} is {far}.", param=path)
    return moment


def _moment(value: Any, path: str) -> float:
    if not isinstance(value, str):
        return float(value)
    try:
        parsed = datetime.fromisoformat(value)
        if parsed.tzinfo is not None:
            return parsed.timestamp()
    except (ValueError, OverflowError):
        raise errors.InvalidRequest(
            f"Invalid '{path}': {value[:100]!r} is no time; {_ADVICE}.", param=path
        ) from None
    raise errors.InvalidRequest(
        f"Invalid '{path}': {value!r} has no time zone; add Z for UTC, or an offset such as +02:00.",
        param=path,
    )


def duration(value: Any, path: str) -> float:
    """Seconds, above 0. Raises InvalidRequest."""
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise errors.InvalidRequest(f"Invalid '{path}': {error}.", param=path) from None
    if not math.isfinite(seconds) or not 0 < seconds <= FARTHEST:
        raise errors.InvalidRequest(
            f"Invalid '{path}': give more than 0 s and at most ten years.", param=path
        )
    return seconds


def _needs(value: list[Any], path: str) -> None:
    if len(value) > MOST_NEEDS:
        raise errors.InvalidRequest(f"Invalid '{path}': more than {MOST_NEEDS} jobs.", param=path)
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise wrong_type(f"{path}[{index}]", (STRING,), item)
        if not is_job_id(item):
            raise errors.InvalidRequest(
                f"Invalid '{path}[{index}]': {item[:100]!r} is no id of a job.", param=f"{path}[{index}]"
            )
    if len(set(value)) < len(value):
        raise errors.InvalidRequest(f"Invalid '{path}': a job is named twice.", param=path)


TERMS = {
    "run_at": Field(
        types=(STRING, NUMBER),
        doc="Not before this time: ISO 8601 with a zone, or Unix seconds. A time that has passed is now.",
        check=instant,
    ),
    "expires_at": Field(
        types=(STRING, NUMBER),
        doc="Given up when it has not started by then: a time like `run_at`.",
        check=instant,
    ),
    "expires_in": Field(
        types=(STRING, NUMBER),
        doc="The same as a duration from now: `90s`, `15m`, `2h`, `7d`, or seconds.",
        check=duration,
    ),
    "depends_on": Field(
        types=(ARRAY,),
        doc="Ids of your own jobs that must have succeeded first. Parts of their results may be put into `body` as "
        "texts like `{{jobs.0.choices.0.message.content}}`, see docs/scheduling.md.",
        check=_needs,
        schema={"items": {"type": "string", "format": "uuid"}, "maxItems": MOST_NEEDS, "uniqueItems": True},
    ),
    "on_dependency_failure": Field(
        types=(STRING,),
        choices=tuple(each.value for each in OnDependencyFailure),
        doc="When one of those does not succeed: `fail` (default) fails this job too, `run` runs it all the same.",
    ),
    "webhook": WEBHOOK,
}
"""Fields of an envelope that are neither the request nor its priority."""


def terms_of(found: Mapping[str, Any], *, now: float) -> Terms:
    """The terms that an envelope states. Raises InvalidRequest."""
    given = {name: found[name] for name in TERMS if found.get(name) is not None}
    fields.verify(given, TERMS)
    due = instant(given["run_at"], "run_at") if "run_at" in given else None
    return Terms(
        due_at=due if due is not None and due > now else None,
        expires_at=_expiry(given, now, due),
        depends_on=tuple(given.get("depends_on", ())),
        on_dependency_failure=OnDependencyFailure(
            given.get("on_dependency_failure", OnDependencyFailure.FAIL)
        ),
        webhook=given.get("webhook"),
    )


def _expiry(given: Mapping[str, Any], now: float, due: float | None) -> float | None:
    if "expires_at" in given and "expires_in" in given:
        raise errors.InvalidRequest(
            "'expires_at' and 'expires_in' say the same; give one.", param="expires_in"
        )
    if "expires_in" in given:
        name, end = "expires_in", now + duration(given["expires_in"], "expires_in")
    elif "expires_at" in given:
        name, end = "expires_at", instant(given["expires_at"], "expires_at")
    else:
        return None
    if end <= now:
        raise errors.InvalidRequest(f"Invalid '{name}': that time has passed.", param=name)
    if due is not None and end <= due:
        raise errors.InvalidRequest(
            f"Invalid '{name}': the job would expire before its 'run_at'.", param=name
        )
    return end
