"""Schedules: jobs that come again."""

import time
from dataclasses import replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.types import ASGIApp

from api import operations, submission
from api.auth import Access
from api.body import read_object
from api.calls import json_response
from api.context import caller_of, context_of
from api.routes import Routes
from api.schemas.schedules import CHANGES, SCHEDULE, schedule_json
from inferq import errors
from inferq.endpoints import fields
from inferq.job import new_job_id
from inferq.recurrence import Recurrence
from inferq.request import renamed
from storage.schedules import Schedule

routes = Routes("Schedules")

_WHICH = operations.parameter("path", "schedule", "Id, or the name of one of your own.")
_SCHEDULE = {"200": operations.answer("The schedule.", operations.ref("Schedule"))}
_JOB = {
    "model": "demo-chat",
    "body": {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
}


@routes.route(
    "POST",
    "/schedules",
    access=Access.USER,
    summary="Make a schedule",
    requestBody=operations.body(
        fields.object_schema(SCHEDULE),
        workdays={"name": "report", "cron": "30 6 * * MON-FRI", "timezone": "Europe/Berlin", "job": _JOB},
    ),
    responses={
        "200": operations.answer("The schedule, with its next three runs.", operations.ref("Schedule")),
        **operations.failures(400, 401, 403, 404, 409, 413, 429, 503),
    },
)
async def create_schedule(request: Request) -> ASGIApp:
    """The job is checked now, and again at each run. Runs that were missed while nothing ran come once together."""
    wanted = await read_object(request)
    fields.refuse_unknown(wanted, SCHEDULE)
    fields.verify(wanted, SCHEDULE)
    now = time.time()
    schedule = Schedule(
        id=new_job_id(),
        name=wanted["name"],
        tenant=caller_of(request).tenant,
        cron=wanted["cron"],
        timezone=wanted.get("timezone") or "UTC",
        request=b"",
        enabled=wanted.get("enabled") is not False,
        created_at=now,
        next_at=None,
    )
    schedule = replace(_timed(schedule, now), request=await _checked(request, wanted["job"]))
    await context_of(request).storage.schedules.create(schedule)
    return json_response(schedule_json(schedule))


@routes.route(
    "GET",
    "/schedules",
    access=Access.READONLY,
    summary="List schedules",
    responses={
        "200": operations.answer("All schedules by name.", operations.page("Schedule")),
        **operations.failures(401, 403, 503),
    },
)
async def list_schedules(request: Request) -> ASGIApp:
    """A user's key lists its tenant's, other keys everybody's."""
    caller = caller_of(request)
    tenant = None if caller.sees_all else caller.tenant
    found = await context_of(request).storage.schedules.list(tenant=tenant)
    data = [schedule_json(schedule) for schedule in found]
    return json_response({"object": "list", "data": data, "has_more": False, "next_cursor": None})


@routes.route(
    "GET",
    "/schedules/{schedule}",
    access=Access.READONLY,
    summary="Look at a schedule",
    parameters=[_WHICH],
    responses={**_SCHEDULE, **operations.failures(*operations.READ_ERRORS)},
)
async def get_schedule(request: Request) -> ASGIApp:
    """Its next three runs, and what became of the last."""
    return json_response(schedule_json(await _find(request)))


@routes.route(
    "PATCH",
    "/schedules/{schedule}",
    access=Access.USER,
    summary="Change, pause or resume a schedule",
    parameters=[_WHICH],
    requestBody=operations.body(
        fields.object_schema(CHANGES), pause={"enabled": False}, hourly={"cron": "@hourly"}
    ),
    responses={**_SCHEDULE, **operations.failures(*operations.CHANGE_ERRORS)},
)
async def change_schedule(request: Request) -> ASGIApp:
    """The next run is the next time from now on; none is made up for that passed while it was paused."""
    wanted = await read_object(request)
    fields.refuse_unknown(wanted, CHANGES)
    fields.verify(wanted, CHANGES)
    found = await _find(request)
    changes: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    job = changes.pop("job", None)
    changed = _timed(replace(found, **changes), time.time())
    if job is not None:
        changes["request"] = await _checked(request, job)
    after = await context_of(request).storage.schedules.change(
        found.id, {**changes, "next_at": changed.next_at}
    )
    return json_response(schedule_json(_there(after)))


@routes.route(
    "DELETE",
    "/schedules/{schedule}",
    access=Access.USER,
    summary="Delete a schedule",
    parameters=[_WHICH],
    responses={**_SCHEDULE, **operations.failures(*operations.READ_ERRORS)},
)
async def delete_schedule(request: Request) -> ASGIApp:
    """Jobs that it has made stay."""
    found = await _find(request)
    await context_of(request).storage.schedules.delete(found.id)
    return json_response(schedule_json(found))


def _timed(schedule: Schedule, now: float) -> Schedule:
    """The schedule with its next time. Raises InvalidRequest for times that cannot be read, or never come."""
    recurrence = Recurrence(schedule.cron, schedule.timezone)
    recurrence.check()
    return replace(schedule, next_at=recurrence.after(now) if schedule.enabled else None)


async def _checked(request: Request, envelope: dict[str, Any]) -> bytes:
    """The envelope, JSON, with what the request says beside it: at its runs neither path nor headers are there, and no
    key that would say which lane they may use.

    Raises what a new job would, with the fields named as they are here.
    """
    proxy = request.scope.get("proxy")
    if proxy is not None and proxy.context is not None:
        raise errors.InvalidRequest(
            "A schedule keeps no context of a path; leave it out, and bound the answers in the job's body."
        )
    try:
        spec = await submission.from_envelope(request, dict(envelope))
    except (errors.InvalidRequest, errors.NotFound) as error:
        error.param = f"job.{error.param}" if error.param else "job"
        raise
    kept = envelope if proxy is None else renamed(envelope, proxy.model)
    kept = {**kept, "priority": spec.lane.value}
    if spec.webhook is not None:
        kept["webhook"] = spec.webhook
    return orjson.dumps(kept)


async def _find(request: Request) -> Schedule:
    """The schedule that the path names, if its caller may see it. Raises NotFound."""
    caller = caller_of(request)
    which = request.path_params["schedule"]
    found = await context_of(request).storage.schedules.find(which, tenant=caller.tenant)
    if found is None or not caller.sees(found.tenant):
        raise _missing()
    return found


def _there(found: Schedule | None) -> Schedule:
    if found is None:
        raise _missing()
    return found


def _missing() -> errors.NotFound:
    return errors.NotFound("There is no such schedule.")
