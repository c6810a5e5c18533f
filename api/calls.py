"""The one flow behind every endpoint: read, check, and answer with a whole body, a stream, a sound, or 202."""

import asyncio
import re
from contextlib import aclosing
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api import submission
from api.answers import Shape, SoundAnswer, StreamAnswer, WholeAnswer, submit
from api.context import caller_of, context_of, text_header
from api.departure import UntilDeparture
from api.errors import retry_seconds
from api.job_events import with_silences
from api.job_json import job_json
from api.links import linker
from api.pictures import rendered
from api.reading import read_request
from inferq import request as asked
from inferq.endpoints import ENDPOINTS, fields
from inferq.endpoints import Answer as Kind
from inferq.endpoints.sound import BACKGROUND
from inferq.job import Job, JobSpec, JobState

LONGEST_WAIT = 3600.0
RECORDED_S, RECORDED_MOST_S = 0.02, 1.0
"""First and longest pause of a wait that looks whether SQL holds a result: the scheduler may be away."""
_WAIT = re.compile(r"wait=([0-9]{1,6})")


async def call(request: Request, path: str) -> Response:
    """Answer `POST /v1/{path}`. Raises what `api.errors` maps."""
    endpoint = ENDPOINTS[path]
    body = await read_request(request, endpoint)
    background = body.pop("background", None)
    fields.verify({"background": background}, {"background": BACKGROUND})
    if endpoint.long or background or "respond-async" in preferences(request):
        return await accept(request, await submission.durable(request, endpoint, body))
    checked, spec = await submission.interactive(request, endpoint, body)
    context, weight = context_of(request), caller_of(request).weight
    sound = endpoint.stream_type(checked.body) if spec.stream else None
    if sound:
        return SoundAnswer(context, spec, weight, sound)
    if spec.stream:
        return StreamAnswer(context, spec, weight)
    return await _whole(request, checked, spec)


async def _whole(request: Request, checked: asked.Request, spec: JobSpec) -> Response:
    """The answer of the cache, or one that will be in it."""
    context = context_of(request)
    shape, keep = _shape(request, checked), None
    key = None
    if "no-store" not in _cache_control(request):
        key = await context.gateway.cache.key(checked, spec.tenant)
    if key is not None:
        found = await context.gateway.cache.find(key)
        context.telemetry.cache_looked(checked.model, hit=found is not None)
        if found is not None:
            data = await shape(found.data) if shape else found.data
            return Response(data, headers={"X-Cache": "hit"}, media_type=found.media_type)
        keep = partial(context.gateway.cache.keep, key)
    return WholeAnswer(context, spec, caller_of(request).weight, shape, keep)


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


async def accept(request: Request, spec: JobSpec) -> Response:
    """Submit a durable job and answer 202 with it, or 200 when it ends within the time the caller waits."""
    job = await accepted_job(request, spec)
    if job.terminal:
        return json_response(job_json(job, linker(request)), headers={"X-Job-Id": job.id})
    return accepted_response(job, request)


async def accepted_job(request: Request, spec: JobSpec) -> Job:
    """Submit a durable job; the job, after `Prefer: wait=N` seconds or its end, whichever is first."""
    context = context_of(request)
    accepted = await submit(context, spec, weight=caller_of(request).weight)
    seconds = next((float(match[1]) for match in map(_WAIT.fullmatch, preferences(request)) if match), 0.0)
    if seconds:
        return await _awaited(request, spec.id, min(seconds, LONGEST_WAIT))
    if accepted.scheduled:
        return await context.gateway.intake.find(spec.id)
    return Job(
        spec=spec,
        state=JobState.QUEUED,
        queued_at=spec.created_at if accepted.queued else None,
        position=accepted.position,
        eta=accepted.eta,
    )


async def _awaited(request: Request, job_id: str, seconds: float) -> Job:
    """The job when it has ended, or as it is when the time is over or the server stops.

    Raises CallerLeft; the job goes on, and a caller who leaves loses nothing.
    """
    gateway, stopping = context_of(request).gateway, context_of(request).stopping
    try:
        async with (
            UntilDeparture(request.receive),
            asyncio.timeout(seconds),
            aclosing(with_silences(gateway.queue.events(job_id), seconds, stopping)) as events,
        ):
            async for event in events:
                if event is not None and event[1] == "done":
                    break
            # A durable job has ended when SQL says so, which is a moment after Redis does.
            pause = RECORDED_S
            while not (job := await gateway.intake.find(job_id)).terminal and not stopping.is_set():
                await asyncio.sleep(pause)
                pause = min(2 * pause, RECORDED_MOST_S)
            return job
    except TimeoutError:
        return await gateway.intake.find(job_id)


def accepted_response(job: Job, request: Request) -> Response:
    """202: the job, where to ask for it, and when to ask first."""
    return json_response(job_json(job, linker(request)), status=202, headers=job_headers(job))


def job_headers(job: Job) -> dict[str, str]:
    return {
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
