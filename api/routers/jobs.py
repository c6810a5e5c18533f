"""Jobs: accept, look, list, cancel, retry, requeue, follow, fetch the result."""

from functools import partial

from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations, submission
from api.auth import Access
from api.body import parse_object, read_bytes, read_object
from api.calls import accept, accepted_response, json_response
from api.context import caller_of, context_of, text_header
from api.edits import edits_of
from api.finding import find_job
from api.idempotency import turn_of
from api.job_events import EventStream
from api.job_filters import PARAMETERS, filters_of
from api.job_json import job_json
from api.links import linker
from api.results import result_response
from api.routes import Routes
from api.schemas.jobs import CHANGE, REQUEUE
from inferq import errors
from inferq.endpoints import ENDPOINTS, fields
from inferq.lanes import bounded, parse_lane
from inferq.request import ENVELOPE

routes = Routes("Jobs")

_EXAMPLE = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
_JOB = {"200": operations.answer("The job.", operations.ref("Job"))}
_ACCEPTED = {
    "202": operations.answer(
        "The job; `Location` and `Retry-After` say where and when to ask.", operations.ref("Job")
    )
}


@routes.route(
    "POST",
    "/jobs",
    access=Access.USER,
    summary="Accept a job",
    requestBody=operations.body(
        fields.object_schema(ENVELOPE, open_ended=True),
        job={"model": "demo-chat", "body": _EXAMPLE, "priority": "low", "metadata": {"from": "docs"}},
        bare={"model": "demo-chat", **_EXAMPLE},
    ),
    parameters=[operations.IDEMPOTENCY_KEY],
    responses={**_ACCEPTED, **operations.failures(400, 401, 403, 404, 413, 429, 503)},
)
async def create_job(request: Request) -> ASGIApp:
    """A durable job: once it is accepted it reaches an end, whatever restarts. An object without `body` is itself the
    request body."""
    envelope = await read_object(request)
    return await accept(request, partial(submission.from_envelope, request, envelope))


@routes.route(
    "GET",
    "/jobs",
    access=Access.READONLY,
    summary="List jobs",
    parameters=PARAMETERS,
    responses={
        "200": operations.answer("One page, newest first, without results.", operations.page("Job")),
        **operations.failures(400, 401, 403, 503),
    },
)
async def list_jobs(request: Request) -> ASGIApp:
    """A user's key lists its tenant's jobs, other keys everybody's. Interactive jobs are listed once they
    have ended."""
    caller = caller_of(request)
    filters = filters_of(request)
    if not caller.sees_all:
        filters["tenant"] = caller.tenant
    page = await context_of(request).gateway.intake.list_jobs(**filters)
    data = [job_json(job, whole=False) for job in page.jobs]
    return json_response(
        {
            "object": "list",
            "data": data,
            "has_more": page.next_cursor is not None,
            "next_cursor": page.next_cursor,
        }
    )


@routes.route(
    "GET",
    "/jobs/{job_id}",
    access=Access.READONLY,
    summary="Look at a job",
    parameters=[operations.JOB_ID],
    responses={**_JOB, **operations.failures(*operations.READ_ERRORS)},
)
async def get_job(request: Request) -> ASGIApp:
    """Its state, its place while it waits, its result or error when it has ended."""
    return json_response(job_json(await find_job(request), linker(request)))


@routes.route(
    "PATCH",
    "/jobs/{job_id}",
    access=Access.USER,
    summary="Give a job another priority",
    parameters=[operations.JOB_ID],
    requestBody=operations.body(fields.object_schema(CHANGE), urgent={"priority": "high"}),
    responses={**_JOB, **operations.failures(*operations.CHANGE_ERRORS)},
)
async def change_job(request: Request) -> ASGIApp:
    """While it waits it keeps the time at which it came: only the head start of its lane changes. A key cannot lift it
    above the lane that the key may use."""
    wanted = await read_object(request)
    fields.refuse_unknown(wanted, CHANGE)
    fields.verify(wanted, CHANGE)
    job = await find_job(request)
    lane = bounded(parse_lane(wanted["priority"]), caller_of(request).lane)
    changed = await context_of(request).gateway.intake.reprioritise(job.id, lane)
    return json_response(job_json(changed, linker(request)))


@routes.route(
    "POST",
    "/jobs/{job_id}/cancel",
    access=Access.USER,
    summary="Cancel a job",
    parameters=[operations.JOB_ID],
    responses={**_JOB, **operations.failures(*operations.READ_ERRORS)},
)
async def cancel_job(request: Request) -> ASGIApp:
    """Takes it out of the queue, or stops it down to the engine. A job that has ended is returned as it is."""
    job = await find_job(request)
    cancelled = await context_of(request).gateway.intake.cancel(job.id)
    return json_response(job_json(cancelled, linker(request)))


@routes.route(
    "POST",
    "/jobs/{job_id}/retry",
    access=Access.USER,
    summary="Run a failed job again",
    parameters=[operations.JOB_ID, operations.IDEMPOTENCY_KEY],
    responses={**_ACCEPTED, **operations.failures(*operations.CHANGE_ERRORS)},
)
async def retry_job(request: Request) -> ASGIApp:
    """As it was asked, with fresh attempts. It becomes durable if it was not."""
    job = await find_job(request)
    context = context_of(request)
    submission.permit(request, ENDPOINTS[job.spec.endpoint])
    edits = await edits_of(request, job, {})
    turn = await turn_of(request, job.id)
    queued = turn.earlier or await context.gateway.intake.requeue(job.id, edits=edits, claim=turn.claim)
    return accepted_response(queued, request)


@routes.route(
    "POST",
    "/jobs/{job_id}/requeue",
    access=Access.USER,
    summary="Run a job again with changes",
    parameters=[operations.JOB_ID, operations.IDEMPOTENCY_KEY],
    requestBody={
        **operations.body(fields.object_schema(REQUEUE), lane={"priority": "high"}),
        "required": False,
    },
    responses={**_ACCEPTED, **operations.failures(*operations.CHANGE_ERRORS)},
)
async def requeue_job(request: Request) -> ASGIApp:
    """With another body, model, priority or metadata. A change of body is checked like a new job."""
    context = context_of(request)
    raw = await read_bytes(request, context.settings.api.max_body)
    wanted = parse_object(raw) if raw else {}
    fields.refuse_unknown(wanted, REQUEUE)
    fields.verify(wanted, REQUEUE)
    job = await find_job(request)
    submission.permit(request, ENDPOINTS[job.spec.endpoint])
    turn = await turn_of(request, job.id)
    if turn.earlier is not None:
        return accepted_response(turn.earlier, request)
    edits = await edits_of(request, job, wanted)
    queued = await context.gateway.intake.requeue(job.id, edits=edits, claim=turn.claim)
    return accepted_response(queued, request)


@routes.route(
    "GET",
    "/jobs/{job_id}/events",
    access=Access.READONLY,
    summary="Follow a job",
    parameters=[
        operations.JOB_ID,
        operations.parameter(
            "header", "Last-Event-ID", "Go on after this event; browsers send it by themselves."
        ),
    ],
    responses={
        "200": operations.answer(
            "Events `state`, `progress`, `chunk` and, last, `done`.",
            content={"text/event-stream": {"schema": {"type": "string"}}},
        ),
        **operations.failures(*operations.READ_ERRORS),
    },
)
async def follow_job(request: Request) -> ASGIApp:
    """Server-sent events of a durable or kept job, resumable. A job that has ended answers with `done` at once."""
    job = await find_job(request)
    return EventStream(context_of(request), job, after=text_header(request.scope, b"last-event-id"))


@routes.route(
    "GET",
    "/jobs/{job_id}/result",
    access=Access.READONLY,
    summary="Fetch a result",
    parameters=[operations.JOB_ID],
    responses={
        "200": operations.answer("The result as the engine made it.", content={"*/*": {"schema": {}}}),
        **operations.failures(401, 403, 404, 409, 503),
    },
)
async def job_result(request: Request) -> ASGIApp:
    """The bytes themselves, whether the record holds them or the artifact store."""
    job = await find_job(request)
    response = await result_response(request, job)
    if response is not None:
        return response
    if job.error and job.terminal:
        raise errors.Conflict(f"Job {job.id} is {job.state} and has no result: {job.error.message}")
    raise errors.Conflict(
        f"Job {job.id} is {job.state}; there is no result {'any more' if job.terminal else 'yet'}."
    )
