"""The parts of OpenAPI operations that routes share: errors, bodies, parameters. Data only."""

from typing import Any

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                "code": {"type": ["string", "null"], "description": "Stable and machine-readable."},
            },
        }
    },
}

_MEANING = {
    400: "The request is wrong; `param` names the field.",
    401: "No key, or one that is not known.",
    403: "The key's role is too low.",
    404: "There is no such model, job, artifact or key.",
    409: "The job's state forbids this.",
    413: "The body is larger than `api.max_body`, a form or a file than `media.max_upload`, or all files of the "
    "request together than `media.max_media_bytes`.",
    416: "The range lies outside the artifact.",
    429: "The queue is full; `Retry-After` tells when to come back.",
    500: "The engine or the server failed.",
    503: "A part of the system is away; `Retry-After` tells when to come back.",
    504: "No answer within `api.wait_timeout`; the message names the job.",
}

CALL_ERRORS = (400, 401, 403, 404, 413, 429, 500, 503, 504)
CHANGE_ERRORS = (400, 401, 403, 404, 409, 503)
READ_ERRORS = (401, 403, 404, 503)
EVENTS = "text/event-stream"
_SCHEMAS = {"application/json": "object"}


def failures(*statuses: int) -> dict[str, Any]:
    """The error answers of an operation."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {str(status): {"description": _MEANING[status], "content": content} for status in statuses}


def answer(description: str, schema: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """One good answer, JSON unless `more` brings content of its own."""
    made: dict[str, Any] = {"description": description, **more}
    if "content" not in made:
        made["content"] = {"application/json": {"schema": schema or {"type": "object"}}}
    return made


def called(
    description: str, *types: str, job: str = "With `Prefer: respond-async`: the job."
) -> dict[str, Any]:
    """What a call to a model may answer: something of these media types (JSON where none is named), or the job."""
    content = {
        each: {"schema": {"type": _SCHEMAS.get(each, "string")}} for each in types or ("application/json",)
    }
    return {
        "200": answer(description, content=content),
        "202": answer(job, ref("Job")),
        **failures(*CALL_ERRORS),
    }


def body(schema: dict[str, Any], **examples: Any) -> dict[str, Any]:
    """A JSON request body with named examples."""
    content: dict[str, Any] = {"schema": schema}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"required": True, "content": {"application/json": content}}


def form_or_json(schema: dict[str, Any]) -> dict[str, Any]:
    """A body that may come as a form, whose files are parts of it, or as JSON."""
    content = {"multipart/form-data": {"schema": schema}, "application/json": {"schema": schema}}
    return {"required": True, "content": content}


def parameter(
    where: str, name: str, description: str, schema: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "in": where,
        "name": name,
        "required": where == "path",
        "description": description,
        "schema": schema or {"type": "string"},
    }


def page(name: str) -> dict[str, Any]:
    """One page of a list of these."""
    return {
        "type": "object",
        "properties": {
            "object": {"type": "string", "const": "list"},
            "data": {"type": "array", "items": ref(name)},
            "has_more": {"type": "boolean"},
            "next_cursor": {"type": ["string", "null"]},
        },
    }


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


IDEMPOTENCY_KEY = parameter(
    "header",
    "Idempotency-Key",
    "A name of your own for this request. The same request with the same key gets the same job and its answer; another "
    "one is refused with 422 `idempotency_mismatch`.",
    {"type": "string", "minLength": 1, "maxLength": 255},
)
CALL_HEADERS = [
    parameter("header", "X-Priority", "`high`, `medium`, `low`, or 0 to 9. Wins over the body's `priority`."),
    parameter(
        "header",
        "X-On-Disconnect",
        "What becomes of the job when the connection breaks: `cancel` (default) or `keep`.",
        {"type": "string", "enum": ["cancel", "keep"]},
    ),
    parameter(
        "header", "Prefer", "`respond-async` makes it a durable job: the answer is 202 with the job, at once."
    ),
    IDEMPOTENCY_KEY,
    parameter(
        "header", "X-Webhook", "With `respond-async`: an https URL that is told when the job has ended."
    ),
    parameter("header", "X-Request-Id", "An id of your own for this request; every answer carries one."),
]
JOB_ID = parameter("path", "job_id", "Id of a job.", {"type": "string", "format": "uuid"})
