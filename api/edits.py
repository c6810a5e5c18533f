"""What a caller changes about a job that is run again, as the ledger takes it. It changes nothing itself."""

from typing import Any

import orjson
from starlette.requests import Request

from api import submission
from api.context import caller_of, context_of
from inferq import errors
from inferq.endpoints import ENDPOINTS, Endpoint
from inferq.inputs import asks_for_results
from inferq.job import Job, JobState
from inferq.lanes import bounded, parse_lane


def endpoint_of(job: Job) -> Endpoint:
    """Raises Conflict for the job of an older version whose endpoint is gone."""
    endpoint = ENDPOINTS.get(job.spec.endpoint)
    if endpoint is None:
        raise errors.Conflict(
            f"job {job.id} is for /v1/{job.spec.endpoint}, which this version does not have"
        )
    return endpoint


async def edits_of(request: Request, job: Job, wanted: dict[str, Any]) -> dict[str, Any]:
    """What `Intake.requeue` takes. The body names its model, so a change of either makes a new body.

    Raises NotFound when there is no such model any more, and what the check of a new job raises.
    """
    context, endpoint = context_of(request), endpoint_of(job)
    name, _ = context.catalog.for_endpoint(wanted.get("model") or job.spec.model, endpoint)
    edits: dict[str, Any] = {}
    body = wanted.get("body")
    if body is None and name != job.spec.model and job.spec.body:
        if job.spec.depends_on and asks_for_results(job.spec.body):
            raise errors.Conflict(f"Job {job.id} was never filled with other jobs' results; give a body too.")
        body = orjson.loads(job.spec.body)
    if body is not None:
        edits = await submission.edited(request, job, name, body)
    if name != job.spec.model:
        edits["model"] = name
    if wanted.get("metadata") is not None:
        edits["metadata"] = wanted["metadata"]
    asked, lane, most = wanted.get("priority"), job.spec.lane, caller_of(request).lane
    if asked is not None:
        edits["lane"] = bounded(parse_lane(asked), most)
    elif bounded(lane, most) is not lane and (edits or job.state is not JobState.SUCCEEDED):
        edits["lane"] = most  # the job is of a key that may do more
    return edits
