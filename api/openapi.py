"""The OpenAPI document, made from the declared routes. Made when it is first asked for, then kept as bytes."""

from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

import inferq
from api import operations
from api.auth import Access
from api.routes import SecuredRoute
from api.schemas.groups import GROUP_SCHEMA
from api.schemas.jobs import JOB_SCHEMA
from api.schemas.schedules import SCHEDULE_SCHEMA

_DESCRIPTION = """\
A self-hosted scheduler for AI-model jobs, with OpenAI's API. Every call becomes a job that waits in a lane (`high`,
`medium`, `low`) for a replica of its model.

* **Short work** is awaited on the open connection: `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`.
* **Long work** is accepted with an id: `POST /v1/jobs`, or `Prefer: respond-async` on any of the above.

Every path under `/v1` is also there under `/openai/v1`. Send your key as `Authorization: Bearer iq-...`.
All errors look like OpenAI's, always with the four keys `message`, `type`, `param` and `code`, and every answer carries
`X-Request-Id`.
"""

_TAGS = [
    {"name": "Text", "description": "Chat and completions, OpenAI-compatible."},
    {"name": "Embeddings", "description": "Vectors and order."},
    {"name": "Images", "description": "Pictures, OpenAI-compatible and more."},
    {"name": "Audio", "description": "Speech both ways, OpenAI-compatible."},
    {"name": "Video", "description": "Videos, as long jobs."},
    {"name": "Jobs", "description": "Durable jobs: accept, look, cancel, retry, requeue, follow."},
    {"name": "Dead letters", "description": "Jobs that failed for good: why, run again, purge."},
    {"name": "Queues", "description": "What waits and runs; pause, resume and drain."},
    {"name": "Groups", "description": "Jobs that are accepted and looked at together."},
    {"name": "Schedules", "description": "Jobs that come again."},
    {"name": "Artifacts", "description": "Results too big or too binary for a record."},
    {"name": "Models", "description": "What can be called, and what runs now."},
    {"name": "Keys", "description": "Who may call. Administrators only."},
    {"name": "Webhooks", "description": "Messages about the ends of jobs."},
    {"name": "Health", "description": "Probes, metrics, status."},
]


def document(app: FastAPI) -> bytes:
    """The document as JSON."""
    made: dict[str, Any] = get_openapi(
        title="inferq",
        version=inferq.__version__,
        summary="Scheduler for AI-model jobs",
        description=_DESCRIPTION,
        routes=app.routes,
        tags=_TAGS,
    )
    components = made.setdefault("components", {})
    components["schemas"] = {
        "Error": operations.ERROR_SCHEMA,
        "Job": JOB_SCHEMA,
        "Group": GROUP_SCHEMA,
        "Schedule": SCHEDULE_SCHEMA,
    }
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key, `iq-...`."}
    }
    for route in app.routes:
        if isinstance(route, SecuredRoute) and route.include_in_schema:
            for method in route.methods or ():
                _declare_access(made["paths"][route.path_format][method.lower()], route.access)
    return orjson.dumps(made)


def _declare_access(operation: dict[str, Any], access: Access) -> None:
    """Say which key an operation needs, and leave out what FastAPI adds for answers we never give."""
    operation["responses"].pop("422", None)
    if access is Access.PUBLIC:
        operation["security"] = []
        return
    operation["security"] = [{"key": []}]
    operation["description"] = (
        f"{operation.get('description', '')}\n\nNeeds the role `{access.name.lower()}`.".strip()
    )
