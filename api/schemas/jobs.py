"""Bodies of the job routes, and the Job object they answer with."""

from dataclasses import replace
from typing import Any

from inferq.endpoints import ENDPOINTS
from inferq.endpoints.fields import OBJECT, STRING, Field
from inferq.endpoints.gateway import GATEWAY
from inferq.job import JobState
from inferq.lanes import Lane

REQUEUE = {
    "body": Field(types=(OBJECT,), doc="A new request body."),
    "model": Field(types=(STRING,), doc="Another model."),
    "priority": GATEWAY["priority"],
    "metadata": GATEWAY["metadata"],
}

CHANGE = {"priority": replace(GATEWAY["priority"], required=True)}

_TIME = {"type": ["number", "null"], "description": "Unix seconds."}

JOB_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "object": {"type": "string", "const": "job"},
        "model": {"type": "string"},
        "endpoint": {"type": "string", "enum": list(ENDPOINTS)},
        "state": {"type": "string", "enum": list(JobState)},
        "lane": {"type": "string", "enum": list(Lane)},
        "tenant": {"type": "string"},
        "source": {"type": "string", "description": "Where it came from: `api`, or a watched directory."},
        "durable": {"type": "boolean"},
        "kept": {"type": "boolean", "description": "The result outlives its caller."},
        "generation": {"type": "integer", "description": "How often it was requeued."},
        "attempt": {"type": "integer"},
        "max_attempts": {"type": "integer"},
        "created_at": _TIME,
        "due_at": {
            **_TIME,
            "description": "Unix seconds; not queued before. Null: at once, or after other jobs.",
        },
        "expires_at": {**_TIME, "description": "Unix seconds; given up when it has not started by then."},
        "depends_on": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The jobs that it waits for.",
        },
        "group": {"type": ["string", "null"], "description": "The group it was accepted in."},
        "queued_at": _TIME,
        "started_at": _TIME,
        "finished_at": _TIME,
        "position": {"type": ["integer", "null"], "description": "1 is the next to run."},
        "eta_seconds": {"type": ["number", "null"], "description": "Estimated wait."},
        "progress": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "replica": {"type": ["string", "null"]},
        "error": {
            "type": ["object", "null"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "status": {"type": "integer"},
                "param": {"type": ["string", "null"]},
            },
        },
        "result": {"description": "What the engine answered; absent in lists, null until there is one."},
        "artifact_url": {
            "type": ["string", "null"],
            "description": "A link to it that expires, without a key.",
        },
        "artifact": {"type": ["string", "null"], "description": "sha256 of a result too big for the record."},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "webhook": {"type": ["string", "null"], "description": "Where its end is told."},
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["id", "object", "model", "endpoint", "state", "lane"],
}
