"""Dead letters: the jobs that have failed for good. List them, see why, run them again, purge them."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.types import ASGIApp

from api import dead_letters, job_filters, operations
from api.auth import Access
from api.body import read_object
from api.calls import json_response
from api.context import caller_of, context_of
from api.finding import find_job
from api.job_json import job_json
from api.links import linker
from api.routes import Routes
from api.schemas import dead as schemas
from inferq import errors
from inferq.endpoints import fields
from inferq.job import Job, JobState
from storage.dead import Cause, Mark, mark_of

routes = Routes("Dead letters")

_LIMIT = 100


@routes.route(
    "GET",
    "/dead",
    access=Access.READONLY,
    summary="List dead letters",
    parameters=[*schemas.QUERY, schemas.CURSOR],
    responses={
        "200": operations.answer("One page of jobs, the newest failure first."),
        **operations.failures(400, 401, 403, 503),
    },
)
async def list_dead(request: Request) -> ASGIApp:
    """A user's key lists its tenant's, other keys everybody's. They stay until they are requeued or purged."""
    found, limit, cursor = _query(request, cursor=True)
    criteria = dead_letters.criteria_of(caller_of(request), found)
    after = Mark.read(cursor) if cursor else None
    jobs = await context_of(request).storage.dead.newest(criteria, after, limit=limit + 1)
    page, more = jobs[:limit], len(jobs) > limit
    return json_response(
        {
            "object": "list",
            "data": [job_json(job, whole=False) for job in page],
            "has_more": more,
            "next_cursor": mark_of(page[-1]).written() if more else None,
        }
    )


@routes.route(
    "GET",
    "/dead/groups",
    access=Access.READONLY,
    summary="Group dead letters by cause",
    parameters=schemas.QUERY,
    responses={
        "200": operations.answer("Causes, the most frequent first."),
        **operations.failures(400, 401, 403, 503),
    },
)
async def group_dead(request: Request) -> ASGIApp:
    """By model, error code, and message with addresses, ids, paths and numbers folded. Of more than 10,000 dead letters
    the newest are looked at; `complete` is false then."""
    found, limit, _ = _query(request, cursor=False)
    criteria = dead_letters.criteria_of(caller_of(request), found)
    causes = await context_of(request).storage.dead.causes(criteria, limit=limit)
    return json_response(
        {
            "object": "list",
            "data": [_cause_json(cause) for cause in causes.causes],
            "looked_at": causes.looked_at,
            "complete": causes.complete,
        }
    )


@routes.route(
    "GET",
    "/dead/{job_id}",
    access=Access.READONLY,
    summary="Look at a dead letter",
    parameters=[operations.JOB_ID],
    responses={
        "200": operations.answer("The job, and its request as `body`.", operations.ref("Job")),
        **operations.failures(*operations.READ_ERRORS, 409),
    },
)
async def show_dead(request: Request) -> ASGIApp:
    """With the request that failed, so that it can be edited. `body` is null where it was not kept."""
    job = await find_job(request)
    if job.state is not JobState.FAILED:
        raise errors.Conflict(f"Job {job.id} is {job.state}; it is no dead letter.")
    return json_response({**job_json(job, linker(request)), "body": _body(job)})


@routes.route(
    "POST",
    "/dead/requeue",
    access=Access.USER,
    summary="Run dead letters again",
    requestBody=operations.body(
        fields.object_schema(schemas.REQUEUE),
        cause={"filter": {"model": "demo-chat", "code": "engine_crashed"}, "dry_run": True},
        edited={"ids": ["019a..."], "edits": {"body": {"max_tokens": 256}, "priority": "low"}},
    ),
    responses={
        "200": operations.answer(
            "`requeued` and `refused` count the jobs, `ids` and `refusals` name them; `waiting` of them go into Redis "
            "when it is back. `next_cursor` goes on."
        ),
        **operations.failures(400, 401, 403, 503),
    },
)
async def requeue_dead(request: Request) -> ASGIApp:
    """With fresh attempts, the oldest failure first, each with the edits if there are any. A user's key means its own
    tenant's jobs. What cannot run stays a dead letter and is told with its reason."""
    wanted = await _wanted(request, schemas.REQUEUE)
    tally = await dead_letters.requeue(
        request,
        dead_letters.chosen(caller_of(request), wanted),
        wanted.get("edits") or {},
        cursor=wanted.get("cursor"),
        limit=wanted.get("limit") or _LIMIT,
        dry_run=wanted.get("dry_run") is True,
    )
    return json_response(
        {
            "object": "dead.requeue",
            "dry_run": wanted.get("dry_run") is True,
            "matched": tally.matched,
            "requeued": len(tally.requeued),
            "waiting": tally.waiting,
            "refused": len(tally.refused),
            "ids": tally.requeued,
            "refusals": [_refusal(*each) for each in tally.refused],
            "has_more": tally.after is not None,
            "next_cursor": tally.after.written() if tally.after else None,
        }
    )


@routes.route(
    "POST",
    "/dead/purge",
    access=Access.ADMIN,
    summary="Delete dead letters for good",
    requestBody=operations.body(
        fields.object_schema(schemas.PURGE),
        old={"older_than": "30d"},
        cause={"filter": {"code": "invalid_value"}, "dry_run": True},
    ),
    responses={
        "200": operations.answer("How many were purged, and whether there are more."),
        **operations.failures(400, 401, 403, 503),
    },
)
async def purge_dead(request: Request) -> ASGIApp:
    """The jobs are forgotten, the oldest failure first. Artifacts stay, because other jobs may name the same ones; so
    does a job from a watched directory whose error file is not written yet."""
    wanted = await _wanted(request, schemas.PURGE)
    criteria = dead_letters.chosen(caller_of(request), wanted)
    limit, dry_run = wanted.get("limit") or _LIMIT, wanted.get("dry_run") is True
    context = context_of(request)
    if dry_run:
        count = min(await context.storage.dead.count(criteria, at_most=limit), limit)
    else:
        count = len(await context.gateway.reviver.purge(criteria, limit=limit))
    more = await context.storage.dead.count(criteria, at_most=limit + 1 if dry_run else 1)
    return json_response(
        {
            "object": "dead.purge",
            "dry_run": dry_run,
            "purged": count,
            "has_more": more > count if dry_run else more > 0,
        }
    )


def _query(request: Request, *, cursor: bool) -> tuple[dict[str, str], int, str | None]:
    """(filters, limit, cursor). A misspelt filter is refused: ignoring it would show everything."""
    legal = [*schemas.FILTER, "limit", *(["cursor"] if cursor else [])]
    given = {}
    for name, text in request.query_params.items():
        if name not in legal:
            raise errors.InvalidRequest(
                f"Unknown filter '{name}'. Legal here: {', '.join(legal)}.", param=name
            )
        if text:
            given[name] = text
    limit = job_filters.page_size(given.pop("limit", None))
    position = given.pop("cursor", None)
    fields.verify(given, schemas.FILTER)
    return given, limit, position


async def _wanted(request: Request, table: fields.Table) -> dict[str, Any]:
    wanted = await read_object(request)
    fields.refuse_unknown(wanted, table)
    fields.verify(wanted, table)
    return wanted


def _cause_json(cause: Cause) -> dict[str, Any]:
    return {
        "model": cause.model,
        "code": cause.code,
        "pattern": cause.pattern,
        "count": cause.count,
        "first_at": cause.first_at,
        "last_at": cause.last_at,
        "example": cause.example,
    }


def _refusal(job_id: str, error: errors.InferqError) -> dict[str, Any]:
    return {"id": job_id, "code": error.code, "message": error.message, "param": error.param}


def _body(job: Job) -> Any:
    try:
        return orjson.loads(job.spec.body) if job.spec.body else None
    except orjson.JSONDecodeError:
        return None
