"""Bodies of the group routes, and the Group object they answer with."""

from typing import Any

from inferq import errors
from inferq.endpoints.fields import ARRAY, OBJECT, Field, object_schema, wrong_type
from inferq.endpoints.gateway import GATEWAY
from inferq.job import JobState
from inferq.request import ENVELOPE
from inferq.webhooks import WEBHOOK
from storage.groups import Group

MOST_JOBS = 1000


def _jobs(value: list[Any], path: str) -> None:
    if not 1 <= len(value) <= MOST_JOBS:
        raise errors.InvalidRequest(f"Invalid '{path}': give 1 to {MOST_JOBS} jobs.", param=path)
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise wrong_type(f"{path}[{index}]", (OBJECT,), item)


GROUP = {
    "jobs": Field(
        types=(ARRAY,),
        required=True,
        doc="Jobs as `POST /v1/jobs` takes them. In `depends_on`, `#0` is the first of them; only earlier ones can be "
        "named.",
        check=_jobs,
        schema={"items": object_schema(ENVELOPE, open_ended=True), "minItems": 1, "maxItems": MOST_JOBS},
    ),
    "metadata": GATEWAY["metadata"],
    "webhook": WEBHOOK,
}

_COUNT = {"type": "integer", "minimum": 0}
_TIME = {"type": ["number", "null"], "description": "Unix seconds."}

GROUP_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "object": {"type": "string", "const": "group"},
        "tenant": {"type": "string"},
        "total": _COUNT,
        "counts": {
            "type": "object",
            "description": "Its jobs by state.",
            "properties": {state.value: _COUNT for state in JobState},
        },
        "progress": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Share of jobs that have ended.",
        },
        "created_at": _TIME,
        "finished_at": {**_TIME, "description": "When the last of its jobs ended for the first time."},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["id", "object", "total", "counts"],
}


def group_json(group: Group, running: int = 0) -> dict[str, Any]:
    """A group as the API shows it; `running` of the jobs that SQL has as queued run."""
    counts = {state.value: group.counts.get(state, 0) for state in JobState}
    running = min(running, counts[JobState.QUEUED])
    counts[JobState.QUEUED] -= running
    counts[JobState.RUNNING] += running
    going = sum(counts[state] for state in (JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING))
    here = f"/v1/groups/{group.id}"
    return {
        "id": group.id,
        "object": "group",
        "tenant": group.tenant,
        "total": group.total,
        "counts": counts,
        "progress": max(group.total - going, 0) / group.total,
        "created_at": group.created_at,
        "finished_at": group.finished_at,
        "metadata": dict(group.metadata),
        "links": {"self": here, "jobs": f"{here}/jobs", "cancel": f"{here}/cancel"},
    }
