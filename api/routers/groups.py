"""Groups: jobs that are accepted together, all or none, and looked at together."""

import asyncio
import contextlib
import re
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api import operations, submission
from api.auth import Access
from api.body import read_object
from api.calls import json_response
from api.context import caller_of, context_of
from api.idempotency import REPLAYED, turn_of
from api.job_filters import PARAMETERS, filters_of, page_of
from api.job_json import job_json
from api.routes import Routes
from api.schemas.groups import GROUP, group_json
from inferq import errors, webhooks
from inferq.endpoints import fields
from inferq.job import JobSpec, is_job_id, new_job_id
from storage.groups import Group
from storage.statements import make_cursor

routes = Routes("Groups")

_MEMBER = re.compile(r"#([0-9]{1,4})")
_ID = operations.parameter("path", "group_id", "Id of a group.", {"type": "string", "format": "uuid"})
_GROUP = {"200": operations.answer("The group.", operations.ref("Group"))}
_ASK = {
    "model": "demo-chat",
    "body": {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
}
_THEN = {
    "model": "demo-chat",
    "body": {"messages": [{"role": "user", "content": "{{jobs.0.choices.0.message.content}}"}]},
    "depends_on": ["#0"],
}


@routes.route(
    "POST",
    "/groups",
    access=Access.USER,
    summary="Accept a group of jobs",
    parameters=[operations.IDEMPOTENCY_KEY],
    requestBody=operations.body(fields.object_schema(GROUP), chain={"jobs": [_ASK, _THEN]}),
    responses={
        "202": operations.answer("The group; `Location` says where to ask.", operations.ref("Group")),
        **operations.failures(400, 401, 403, 404, 413, 429, 503),
    },
)
async def create_group(request: Request) -> ASGIApp:
    """Up to 1000 jobs, accepted all or none. They are queued within a second or so, or when they are due."""
    wanted = await read_object(request)
    fields.refuse_unknown(wanted, GROUP)
    fields.verify(wanted, GROUP)
    turn = await turn_of(request)
    if turn.group is not None:
        return await _accepted(request, turn.group.id, replayed=True)
    group_id = turn.claim.job_id if turn.claim else new_job_id()
    specs = await _specs(request, group_id, wanted["jobs"])
    context = context_of(request)
    group = Group(
        id=group_id,
        tenant=caller_of(request).tenant,
        total=len(specs),
        created_at=time.time(),
        metadata=wanted.get("metadata") or {},
        webhook=_webhook(request, wanted),
    )
    owner = await context.gateway.intake.submit_group(group, specs, claim=turn.claim)
    if owner != group_id:
        return await _accepted(request, owner, replayed=True)
    for spec in specs:
        context.telemetry.job_accepted(spec.model, spec.lane, durable=True)
    return await _accepted(request, group_id)


@routes.route(
    "GET",
    "/groups",
    access=Access.READONLY,
    summary="List groups",
    parameters=[each for each in PARAMETERS if each["name"] in ("cursor", "limit")],
    responses={
        "200": operations.answer("One page, newest first.", operations.page("Group")),
        **operations.failures(400, 401, 403, 503),
    },
)
async def list_groups(request: Request) -> ASGIApp:
    """A user's key lists its tenant's groups, other keys everybody's. Jobs that run are counted as queued."""
    caller, asked = caller_of(request), page_of(request)
    tenant = None if caller.sees_all else caller.tenant
    found = await context_of(request).storage.groups.list(tenant=tenant, **asked)
    shown = found[: asked["limit"]]
    more = len(found) > len(shown)
    return json_response(
        {
            "object": "list",
            "data": [group_json(group) for group in shown],
            "has_more": more,
            "next_cursor": make_cursor(shown[-1].id) if more else None,
        }
    )


@routes.route(
    "GET",
    "/groups/{group_id}",
    access=Access.READONLY,
    summary="Look at a group",
    parameters=[_ID],
    responses={**_GROUP, **operations.failures(*operations.READ_ERRORS)},
)
async def get_group(request: Request) -> ASGIApp:
    """How many of its jobs are in which state."""
    return json_response(await _shown(request, await _find(request)))


@routes.route(
    "GET",
    "/groups/{group_id}/jobs",
    access=Access.READONLY,
    summary="List the jobs of a group",
    parameters=[_ID, *PARAMETERS],
    responses={
        "200": operations.answer("One page, newest first, without results.", operations.page("Job")),
        **operations.failures(400, *operations.READ_ERRORS),
    },
)
async def list_group_jobs(request: Request) -> ASGIApp:
    """The same filters as `GET /v1/jobs`."""
    group = await _find(request)
    page = await context_of(request).gateway.intake.list_jobs(**filters_of(request), group=group.id)
    return json_response(
        {
            "object": "list",
            "data": [job_json(job, whole=False) for job in page.jobs],
            "has_more": page.next_cursor is not None,
            "next_cursor": page.next_cursor,
        }
    )


@routes.route(
    "POST",
    "/groups/{group_id}/cancel",
    access=Access.USER,
    summary="Cancel a group",
    parameters=[_ID],
    responses={**_GROUP, **operations.failures(*operations.READ_ERRORS)},
)
async def cancel_group(request: Request) -> ASGIApp:
    """Cancels those of its jobs that have not ended, down to the engine."""
    group = await _find(request)
    await context_of(request).gateway.intake.cancel_group(group.id)
    return json_response(await _shown(request, await _find(request)))


async def _accepted(request: Request, group_id: str, *, replayed: bool = False) -> Response:
    """202 with the group as it is now. Raises NotFound."""
    group = await context_of(request).storage.groups.get(group_id)
    if group is None:
        raise errors.NotFound("There is no such group.")
    headers = {"Location": f"/v1/groups/{group_id}", "Retry-After": "1"}
    if replayed:
        headers[REPLAYED] = "true"
    return json_response(await _shown(request, group), status=202, headers=headers)


def _webhook(request: Request, wanted: dict[str, Any]) -> str | None:
    url = wanted.get("webhook")
    return webhooks.permitted(url, context_of(request).settings, "webhook") if url is not None else None


async def _specs(request: Request, group_id: str, envelopes: list[dict[str, Any]]) -> list[JobSpec]:
    """The jobs. Raises what a job alone does, naming which it is."""
    # Ids of one millisecond are in no order; those of a group are queued in that of its jobs.
    ids = sorted(new_job_id() for _ in envelopes)
    specs = []
    for index, envelope in enumerate(envelopes):
        try:
            named = _named(envelope, ids[:index])
            spec = await submission.from_envelope(request, named, id=ids[index], group=group_id)
        except errors.InferqError as error:
            error.args = (f"Job #{index}: {error.message}",)
            error.param = f"jobs[{index}].{error.param}" if error.param else f"jobs[{index}]"
            raise
        specs.append(spec)
        # A thousand of them are checked one after the other while others are served.
        await asyncio.sleep(0)
    return specs


def _named(envelope: dict[str, Any], earlier: list[str]) -> dict[str, Any]:
    """The envelope with the ids of the earlier members that its `depends_on` names by their place."""
    needs = envelope.get("depends_on")
    if not isinstance(needs, list):
        return envelope
    return {**envelope, "depends_on": [_id_of(need, index, earlier) for index, need in enumerate(needs)]}


def _id_of(need: Any, index: int, earlier: list[str]) -> Any:
    match = _MEMBER.fullmatch(need) if isinstance(need, str) else None
    if match is None:
        return need
    if int(match[1]) >= len(earlier):
        raise errors.InvalidRequest(f"{need} is no earlier job of the group.", param=f"depends_on[{index}]")
    return earlier[int(match[1])]


async def _find(request: Request) -> Group:
    """The group that the path names, if its caller may see it. Raises NotFound."""
    group_id = request.path_params["group_id"]
    group = await context_of(request).storage.groups.get(group_id) if is_job_id(group_id) else None
    if group is None or not caller_of(request).sees(group.tenant):
        raise errors.NotFound("There is no such group.")
    return group


async def _shown(request: Request, group: Group) -> dict[str, Any]:
    """The group as it stands now. Which of its jobs run, only Redis knows."""
    context, running = context_of(request), 0
    group = await context.storage.groups.get(group.id) or group
    with contextlib.suppress(errors.QueueUnavailable):
        ids = await context.gateway.queue.running()
        running = await context.storage.groups.unfinished_among(group.id, ids)
    return group_json(group, running)
