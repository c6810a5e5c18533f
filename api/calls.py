"""The one flow behind every synchronous endpoint: read, check, and answer with a whole body, a stream, or 202."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api import submission
from api.answers import StreamAnswer, WholeAnswer, submit
from api.body import read_object
from api.context import caller_of, context_of, text_header
from api.errors import retry_seconds
from api.job_json import job_json
from inferq.job import Job, JobSpec, JobState


async def call(request: Request, endpoint: str) -> Response:
    """Answer `POST /v1/{endpoint}`. Raises what `api.errors` maps."""
    body = await read_object(request)
    if _wants_job(request):
        return await accept(request, submission.durable(request, endpoint, body))
    spec = submission.interactive(request, endpoint, body)
    kind = StreamAnswer if spec.stream else WholeAnswer
    return kind(context_of(request), spec, caller_of(request).weight)


async def accept(request: Request, spec: JobSpec) -> Response:
    """Submit a durable job and answer 202 with it."""
    accepted = await submit(context_of(request), spec, weight=caller_of(request).weight)
    job = Job(
        spec=spec,
        state=JobState.QUEUED,
        queued_at=spec.created_at if accepted.queued else None,
        position=accepted.position,
        eta=accepted.eta,
    )
    return accepted_response(job)


def accepted_response(job: Job) -> Response:
    """202: the job, where to ask for it, and when to ask first."""
    headers = {
        "Location": f"/v1/jobs/{job.id}",
        "Retry-After": str(retry_seconds(job.eta or 1)),
        "X-Job-Id": job.id,
    }
    return json_response(job_json(job), status=202, headers=headers)


def json_response(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


def _wants_job(request: Request) -> bool:
    """RFC 7240: `Prefer: respond-async`. Other preferences are none of ours and may be ignored."""
    prefer = text_header(request.scope, b"prefer")
    if prefer is None:
        return False
    return any(part.strip().lower() == "respond-async" for part in prefer.split(","))
