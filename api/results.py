"""The result of a job that has ended, as a call of its endpoint would have answered."""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.context import context_of
from api.downloads import artifact_response
from api.links import linker
from api.pictures import rendered
from inferq.endpoints import ENDPOINTS, Answer
from inferq.job import Job


async def result_response(request: Request, job: Job) -> Response | None:
    """The bytes themselves, whether the record holds them or the artifact store; None where there are none."""
    if job.result is None:
        return await artifact_response(request, job.artifact) if job.artifact else None
    data, spec = job.result, job.spec
    if spec.endpoint in ENDPOINTS and ENDPOINTS[spec.endpoint].answer is Answer.PICTURES:
        form = orjson.loads(spec.body).get("response_format") if spec.body else None
        data = await rendered(data, form, context_of(request).storage.artifacts, linker(request))
    return Response(data, media_type=job.result_type, headers={"X-Job-Id": job.id})
