"""The one flow behind every endpoint: read, check, and answer with a whole body, a stream, a sound, or 202."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api import submission
from api.answers import Answer, Keep, Shape, SoundAnswer, StreamAnswer, WholeAnswer, submit
from api.context import caller_of, context_of, text_header
from api.errors import retry_seconds
from api.idempotency import REPLAYED, turn_of
from api.job_json import job_json
from api.links import linker
from api.pictures import rendered
from api.reading import read_request
from api.replay import FirstOrSame, repeated
from api.waiting import awaited
from inferq import request as asked
from inferq.endpoints import ENDPOINTS, fields
from inferq.endpoints import Answer as Kind
from inferq.endpoints.sound import BACKGROUND
from inferq.job import Job, JobSpec, JobState

LONGEST_WAIT = 3600.0
_WAIT = re.compile(r"wait=([0-9]{1,6})")

Make = Callable[[], Awaitable[JobSpec]]
"""Checks a request and makes the job of it; not asked for a request that was made before."""


async def call(request: Request, path: str) -> ASGIApp:
    """Answer `POST /v1/{path}`. Raises what `api.errors` maps."""
    endpoint = ENDPOINTS[path]
    body = await read_request(request, endpoint)
    background = body.pop("background", None)
    fields.verify({"background": background}, {"background": BACKGROUND})
    if endpoint.long or background or "respond-async" in preferences(request):
        return await accept(request, partial(submission.durable, request, endpoint, body))
    turn = await turn_of(request)
    if turn.earlier is not None:
        return await repeated(request, turn.earlier)
    checked, spec = await submission.interactive(request, endpoint, body)
    if turn.claim is None:
        return await _answer(request, checked, spec)
    # The claim comes before the job, which is in Redis alone: a job without one would run again.
    owner = await context_of(request).storage.claims.take(turn.claim)
    spec = replace(spec, id=owner, kept=True)
    return FirstOrSame(request, _direct(request, checked, spec))


async def _answer(request: Request, checked: asked.Request, spec: JobSpec) -> Response:
    return await _cached(request, checked, spec) if not spec.stream else _direct(request, checked, spec)


def _direct(request: Request, checked: asked.Request, spec: JobSpec, keep: Keep | None = None) -> Answer:
    """An answer of an engine, whole or as it is made."""
    context, weight = context_of(request), caller_of(request).weight
    sound = checked.endpoint.stream_type(checked.body) if spec.stream else None
    if sound:
        return SoundAnswer(context, spec, weight, sound)
    if spec.stream:
        return StreamAnswer(context, spec, weight)
    return WholeAnswer(context, spec, weight, _shape(request, checked), keep)


async def _cached(request: Request, checked: asked.Request, spec: JobSpec) -> Response:
    """The answer of the cache, or one that will be in it."""
    context = context_of(request)
    key, keep = None, None
    if "no-store" not in _cache_control(request):
        key = await context.gateway.cache.key(checked, spec.tenant)
    if key is not None:
        found = await context.gateway.cache.find(key)
        context.telemetry.cache_looked(checked.model, hit=found is not None)
        if found is not None:
            shape = _shape(request, checked)
            data = await shape(found.data) if shape else found.data
            return Response(data, headers={"X-Cache": "hit"}, media_type=found.media_type)
        keep = partial(context.gateway.cache.keep, key)
    return _direct(request, checked, spec, keep)


def _shape(request: Request, checked: asked.Request) -> Shape | None:
    """Pictures are artifacts in an engine's answer, and links or base64 in the caller's."""
    if checked.endpoint.answer is not Kind.PICTURES:
        return None
    artifacts = context_of(request).storage.artifacts
    return partial(
        rendered, form=checked.body.get("response_format"), artifacts=artifacts, link=linker(request)
    )


def _cache_control(request: Request) -> list[str]:
    return [part.strip().lower() for part in (text_header(request.scope, b"cache-control") or "").split(",")]


async def accept(request: Request, make: Make) -> Response:
    """Submit the durable job that `make` makes and answer 202 with it, or 200 when it ends within the time the caller
    waits.
    """
    job = await accepted_job(request, make)
    if job.terminal and patience(request):
        headers = {"X-Job-Id": job.id, **replay_headers(request)}
        return json_response(job_json(job, linker(request)), headers=headers)
    return accepted_response(job, request)


async def accepted_job(request: Request, make: Make) -> Job:
    """Submit a durable job; the job, after `Prefer: wait=N` seconds or its end, whichever is first.

    A request that was made before, with the same key, gets the job that it made then.
    """
    context, seconds = context_of(request), patience(request)
    turn = await turn_of(request)
    if turn.earlier is not None:
        job, repeats = turn.earlier, True
    else:
        spec = await make()
        if turn.claim is not None:
            spec = replace(spec, id=turn.claim.job_id)
        accepted = await submit(
            context, spec, request.scope, weight=caller_of(request).weight, claim=turn.claim
        )
        repeats = accepted.owner is not None
        if accepted.owner is not None or accepted.scheduled:
            job = await context.gateway.intake.find(accepted.owner or spec.id)
        else:
            job = Job(
                spec=spec,
                state=JobState.QUEUED,
                queued_at=spec.created_at if accepted.queued else None,
                position=accepted.position,
                eta=accepted.eta,
            )
    if repeats:
        request.scope["replayed"] = True
    return await awaited(request, job.id, seconds) if seconds and not job.terminal else job


def patience(request: Request) -> float:
    """Seconds that a caller waits for the end of a durable job."""
    seconds = next((float(match[1]) for match in map(_WAIT.fullmatch, preferences(request)) if match), 0.0)
    return min(seconds, LONGEST_WAIT)


def accepted_response(job: Job, request: Request) -> Response:
    """202: the job, where to ask for it, and when to ask first."""
    return json_response(job_json(job, linker(request)), status=202, headers=job_headers(job, request))


def replay_headers(request: Request) -> dict[str, str]:
    """That the job is one of an earlier request, where it is."""
    return {REPLAYED: "true"} if request.scope.get("replayed") else {}


def job_headers(job: Job, request: Request) -> dict[str, str]:
    return {
        **replay_headers(request),
        "Location": f"/v1/jobs/{job.id}",
        "Retry-After": str(retry_seconds(job.eta or 1)),
        "X-Job-Id": job.id,
    }


def json_response(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


def preferences(request: Request) -> list[str]:
    """RFC 7240: the parts of `Prefer`. Those that are none of ours may be ignored."""
    prefer = text_header(request.scope, b"prefer")
    return [part.strip().lower() for part in prefer.split(",")] if prefer else []
