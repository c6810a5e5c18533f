"""Video: long jobs in three shapes, `video/generations`, OpenAI's `videos`, and `jobs`."""

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api import operations, submission
from api.auth import Access
from api.calls import accepted_job, job_headers, json_response, patience
from api.context import caller_of, context_of
from api.downloads import artifact_response
from api.finding import find_job
from api.links import linker
from api.reading import read_request
from api.routes import Routes
from api.video_json import generation_json, video_json
from inferq import errors
from inferq.endpoints import ENDPOINTS, fields
from inferq.endpoints.video import TABLE
from inferq.job import Job

routes = Routes("Video")

ENDPOINT = ENDPOINTS["video/generations"]
POLL_MS = 1000
_ID = operations.parameter("path", "video_id", "Id of the job.")
_VIDEO = {"200": operations.answer("The video."), **operations.failures(*operations.READ_ERRORS)}
_EXAMPLE = {
    "model": "demo-video",
    "prompt": "a cat with a ball",
    "duration": 2,
    "fps": 8,
    "resolution": "64x64",
}


@routes.route(
    "POST",
    "/video/generations",
    access=Access.USER,
    summary="Make a video",
    requestBody=operations.body(fields.object_schema(TABLE, open_ended=True), one=_EXAMPLE),
    parameters=operations.CALL_HEADERS,
    responses={
        "200": operations.answer("With `Prefer: wait=N`, when it was done in time: `data[].url`."),
        "202": operations.answer("The task; ask for it at `links.self`."),
        **operations.failures(400, 401, 403, 404, 413, 429, 503),
    },
)
async def create_generation(request: Request) -> ASGIApp:
    """Always a long job: the answer is a task id. `Prefer: wait=N` waits up to N seconds for its end."""
    job = await _accept(request)
    body = generation_json(job, linker(request))
    return json_response(
        body, status=200 if job.terminal and patience(request) else 202, headers=_headers(job, request)
    )


@routes.route(
    "GET",
    "/video/generations/{video_id}",
    access=Access.READONLY,
    summary="Look at a video task",
    parameters=[_ID],
    responses=_VIDEO,
)
async def get_generation(request: Request) -> ASGIApp:
    """Its state and progress from 0 to 1; `data[].url` when it is done."""
    return json_response(generation_json(await _find(request), linker(request)))


@routes.route(
    "POST",
    "/videos",
    access=Access.USER,
    summary="Make a video, in OpenAI's shape",
    requestBody=operations.form_or_json(fields.object_schema(TABLE, open_ended=True)),
    parameters=operations.CALL_HEADERS,
    responses={
        "200": operations.answer("The video."),
        **operations.failures(400, 401, 403, 404, 413, 429, 503),
    },
)
async def create_video(request: Request) -> ASGIApp:
    """As OpenAI has it: 200 with the video object, to be polled."""
    job = await _accept(request)
    return json_response(video_json(job), headers=_headers(job, request))


@routes.route(
    "GET",
    "/videos",
    access=Access.READONLY,
    summary="List videos",
    responses={"200": operations.answer("The newest ones."), **operations.failures(401, 403, 503)},
)
async def list_videos(request: Request) -> ASGIApp:
    """The newest hundred."""
    caller = caller_of(request)
    filters: dict[str, Any] = {} if caller.sees_all else {"tenant": caller.tenant}
    page = await context_of(request).gateway.intake.list_jobs(endpoint=ENDPOINT.path, limit=100, **filters)
    data = [video_json(job) for job in page.jobs]
    return json_response({"object": "list", "data": data, "has_more": page.next_cursor is not None})


@routes.route(
    "GET",
    "/videos/{video_id}",
    access=Access.READONLY,
    summary="Look at a video",
    parameters=[_ID],
    responses=_VIDEO,
)
async def get_video(request: Request) -> ASGIApp:
    """OpenAI's video object; `progress` is in percent."""
    return json_response(video_json(await _find(request)), headers={"openai-poll-after-ms": str(POLL_MS)})


@routes.route(
    "GET",
    "/videos/{video_id}/content",
    access=Access.READONLY,
    summary="Download a video",
    parameters=[_ID],
    responses={
        "200": operations.answer("The file.", content={"video/mp4": {"schema": {}}}),
        **operations.failures(400, 401, 403, 404, 409, 503),
    },
)
async def video_content(request: Request) -> ASGIApp:
    """The MP4 itself, whole or by range."""
    job = await _find(request)
    variant = request.query_params.get("variant", "video")
    if variant != "video":
        raise errors.InvalidRequest(
            f"The variant {variant!r} is not made here; there is 'video'.", param="variant"
        )
    if job.artifact:
        return await artifact_response(request, job.artifact)
    if job.result is not None:
        return Response(job.result, media_type=job.result_type)
    why = f": {job.error.message}" if job.error and job.terminal else ""
    raise errors.Conflict(f"The video {job.id} is {job.state}{why}; there is no file.")


@routes.route(
    "DELETE",
    "/videos/{video_id}",
    access=Access.USER,
    summary="Cancel a video",
    parameters=[_ID],
    responses=_VIDEO,
)
async def delete_video(request: Request) -> ASGIApp:
    """Cancels it if it has not ended. Finished jobs are kept as long as the installation keeps jobs."""
    job = await _find(request)
    cancelled = await context_of(request).gateway.intake.cancel(job.id)
    return json_response({"id": cancelled.id, "object": "video.deleted", "deleted": True})


async def _accept(request: Request) -> Job:
    body = await read_request(request, ENDPOINT)
    if body.get("input_reference") is not None:  # OpenAI's name
        if body.get("image_url") is not None:
            raise errors.InvalidRequest(
                "Give 'input_reference' or 'image_url', not both: they mean the same picture.",
                param="input_reference",
            )
        body["image_url"] = body.pop("input_reference")
    return await accepted_job(request, partial(submission.durable, request, ENDPOINT, body))


async def _find(request: Request) -> Job:
    job = await find_job(request, "video_id")
    if job.spec.endpoint != ENDPOINT.path:
        raise errors.JobNotFound(f"There is no video {job.id}.")
    return job


def _headers(job: Job, request: Request) -> dict[str, str]:
    return {**job_headers(job, request), "openai-poll-after-ms": str(POLL_MS)}
