"""Bodies of the schedule routes, and the Schedule object they answer with."""

import re
import time
from typing import Any

import orjson

from inferq import errors
from inferq.endpoints.fields import BOOLEAN, OBJECT, STRING, Field, object_schema
from inferq.recurrence import LONGEST, Recurrence
from inferq.request import ENVELOPE
from storage.schedules import Schedule

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OWN_TIME = ("run_at", "expires_at", "depends_on", "on_dependency_failure")


def _name(value: str, path: str) -> None:
    if not _NAME.fullmatch(value):
        raise errors.InvalidRequest(
            f"Invalid '{path}': up to 64 letters, digits, dots, dashes and underscores, a letter or digit first.",
            param=path,
        )


def _job(value: dict[str, Any], path: str) -> None:
    for name in _OWN_TIME:
        if value.get(name) is not None:
            raise errors.InvalidRequest(
                f"'{path}.{name}' makes no sense for a job that comes again; `expires_in` does.",
                param=f"{path}.{name}",
            )


_CRON = Field(
    types=(STRING,),
    doc="Five fields (minute, hour, day of month, month, day of week), six with seconds first, or `@daily` and the "
    "like.",
    schema={"maxLength": LONGEST},
)

SCHEDULE = {
    "name": Field(
        types=(STRING,),
        required=True,
        doc="Your name for it.",
        check=_name,
        schema={"pattern": _NAME.pattern},
    ),
    "cron": Field(types=_CRON.types, required=True, doc=_CRON.doc, schema=_CRON.schema),
    "timezone": Field(types=(STRING,), doc="A name such as `Europe/Berlin`; `UTC` by default."),
    "job": Field(
        types=(OBJECT,),
        required=True,
        doc="The job as `POST /v1/jobs` takes it, without a time of its own.",
        check=_job,
        schema=object_schema(
            {name: row for name, row in ENVELOPE.items() if name not in _OWN_TIME}, open_ended=True
        ),
    ),
    "enabled": Field(types=(BOOLEAN,), doc="`false` pauses it."),
}
CHANGES = {
    name: Field(types=row.types, doc=row.doc, check=row.check, schema=row.schema)
    for name, row in SCHEDULE.items()
    if name != "name"
}

_TIME = {"type": ["number", "null"], "description": "Unix seconds."}

SCHEDULE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "object": {"type": "string", "const": "schedule"},
        "name": {"type": "string"},
        "tenant": {"type": "string"},
        "cron": {"type": "string"},
        "timezone": {"type": "string"},
        "enabled": {"type": "boolean"},
        "job": {"type": "object"},
        "created_at": _TIME,
        "next_at": {**_TIME, "description": "Unix seconds of the next run; null while it is paused."},
        "next_times": {"type": "array", "items": {"type": "number"}, "description": "The next three runs."},
        "last_at": _TIME,
        "last_job": {"type": ["string", "null"], "description": "Id of the job of the last run."},
        "last_error": {"type": ["string", "null"], "description": "Why the last run was left out."},
    },
    "required": ["id", "object", "name", "cron", "timezone", "enabled"],
}


def schedule_json(schedule: Schedule) -> dict[str, Any]:
    """A schedule as the API shows it. Times that cannot be told any more, for want of a time zone, are left out."""
    times: list[float] = []
    if schedule.next_at is not None:
        recurrence = Recurrence(schedule.cron, schedule.timezone)
        try:
            times = [schedule.next_at, *recurrence.next_times(max(schedule.next_at, time.time()), 2)]
        except errors.InvalidRequest:
            times = [schedule.next_at]
    return {
        "id": schedule.id,
        "object": "schedule",
        "name": schedule.name,
        "tenant": schedule.tenant,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "enabled": schedule.enabled,
        "job": orjson.loads(schedule.request),
        "created_at": schedule.created_at,
        "next_at": schedule.next_at,
        "next_times": times,
        "last_at": schedule.last_at,
        "last_job": schedule.last_job,
        "last_error": schedule.last_error,
    }
