"""Bodies and query of the dead-letter routes, as tables."""

from typing import Any

from api.operations import parameter
from api.schemas.jobs import REQUEUE as EDITS
from inferq import errors
from inferq.endpoints import fields
from inferq.endpoints.fields import ARRAY, BOOLEAN, INTEGER, NUMBER, OBJECT, STRING, Field
from inferq.job import is_job_id
from inferq.lanes import Lane, parse_lane

MOST = 1000
"""Jobs that one call requeues or purges, and ids that it may name."""
_LONGEST_TEXT = 256
_TIME = "`2h` (ago), a date and time, or Unix seconds"


def _text(value: str, path: str) -> None:
    if len(value) > _LONGEST_TEXT:
        raise errors.InvalidRequest(f"'{path}' is longer than {_LONGEST_TEXT} characters.", param=path)
    if "\0" in value:
        # PostgreSQL has no text with it.
        raise errors.InvalidRequest(f"'{path}' holds a NUL character.", param=path)


def _ids(value: list[Any], path: str) -> None:
    if not 1 <= len(value) <= MOST:
        raise errors.InvalidRequest(f"'{path}' must name 1 to {MOST} jobs, not {len(value)}.", param=path)
    for place, job_id in enumerate(value):
        if not isinstance(job_id, str) or not is_job_id(job_id):
            where = f"{path}[{place}]"
            raise errors.InvalidRequest(f"'{where}' is no id of a job: {str(job_id)[:40]!r}.", param=where)


def _filter(value: dict[str, Any], _path: str) -> None:
    fields.refuse_unknown(value, FILTER)
    fields.verify(value, FILTER)


def _edits(value: dict[str, Any], _path: str) -> None:
    fields.refuse_unknown(value, PATCH)
    fields.verify(value, PATCH)
    if value.get("priority") is not None:
        parse_lane(value["priority"])


FILTER = {
    "model": Field(types=(STRING,), doc="Only jobs of this model.", check=_text),
    "lane": Field(types=(STRING,), doc="Only jobs of this lane.", choices=tuple(Lane)),
    "tenant": Field(types=(STRING,), doc="Only jobs of this tenant.", check=_text),
    "source": Field(types=(STRING,), doc="Only jobs that came from there, for instance `api`.", check=_text),
    "code": Field(types=(STRING,), doc="Only jobs with this error code.", check=_text),
    "since": Field(types=(STRING, NUMBER), doc=f"Only jobs that failed then or later: {_TIME}."),
    "until": Field(types=(STRING, NUMBER), doc=f"Only jobs that failed before: {_TIME}."),
}
"""Which dead letters. A text is at most 256 characters."""

PATCH = {
    **EDITS,
    "body": Field(
        types=(OBJECT,), doc="A JSON merge patch (RFC 7396) of each job's own body; null removes a field."
    ),
}

_CHOICE = {
    "ids": Field(types=(ARRAY,), doc=f"Only these jobs, at most {MOST}.", check=_ids),
    "filter": Field(
        types=(OBJECT,), doc="Only jobs like these.", check=_filter, schema=fields.object_schema(FILTER)
    ),
    "all": Field(types=(BOOLEAN,), doc="Every dead letter: needed where neither ids nor a filter is given."),
    "dry_run": Field(types=(BOOLEAN,), doc="Only say what would be done."),
    "limit": Field(
        types=(INTEGER,),
        low=1,
        high=MOST,
        doc="Most jobs that this call looks at; 100 where it is not given.",
    ),
}

REQUEUE = {
    **_CHOICE,
    "edits": Field(
        types=(OBJECT,), doc="What changes about each job.", check=_edits, schema=fields.object_schema(PATCH)
    ),
    "cursor": Field(types=(STRING,), doc="`next_cursor` of the call before.", check=_text),
}
PURGE = {
    **_CHOICE,
    "older_than": Field(
        types=(STRING, NUMBER), doc="Only jobs that failed longer ago than this: `7d`, or seconds."
    ),
}

QUERY = [
    *(
        parameter(
            "query", name, row.doc, {"type": "string", **({"enum": list(row.choices)} if row.choices else {})}
        )
        for name, row in FILTER.items()
    ),
    parameter(
        "query",
        "limit",
        "Entries per page.",
        {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
    ),
]
CURSOR = parameter("query", "cursor", "`next_cursor` of the page before.")
