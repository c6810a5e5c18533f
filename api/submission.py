"""From a request's body to a JobSpec: checked, gateway fields taken out, canonical model name put in.

Every way into the API that makes a job goes through here. It submits nothing.
"""

import time
from typing import Any

import orjson
from starlette.requests import Request

from api import fields
from api.auth import Caller
from api.catalog import TAKES
from api.context import Context, caller_of, context_of, text_header
from api.schemas.chat import CHAT, COMPLETION
from api.schemas.embeddings import EMBEDDING
from api.schemas.jobs import ENVELOPE, NOT_BUILT
from api.sizing import units_of
from inferq import errors
from inferq.job import JobSpec, OnDisconnect, new_job_id
from inferq.lanes import Lane, lane_of_tier, parse_lane

TABLES: dict[str, fields.Table] = {
    "chat/completions": CHAT,
    "completions": COMPLETION,
    "embeddings": EMBEDDING,
}
"""Endpoint to the fields of its body."""


def interactive(request: Request, endpoint: str, body: dict[str, Any]) -> JobSpec:
    """The job of a call that waits on its connection."""
    return _spec(
        context_of(request),
        caller_of(request),
        endpoint,
        body,
        lane=_lane(request, body),
        kept=_on_disconnect(request) is OnDisconnect.KEEP,
    )


def durable(request: Request, endpoint: str, body: dict[str, Any]) -> JobSpec:
    """The job of a call that is answered with an id."""
    lane = _lane(request, body)
    return _spec(context_of(request), caller_of(request), endpoint, body, lane=lane, durable=True)


def from_envelope(request: Request, envelope: dict[str, Any]) -> JobSpec:
    """The job that `POST /v1/jobs` describes: `{endpoint?, model, body, ...}`, or a body by itself."""
    if "body" not in envelope:
        fields.verify({name: envelope.get(name) for name in NOT_BUILT}, NOT_BUILT)
        endpoint = _endpoint(context_of(request), envelope.pop("endpoint", None), envelope.get("model"))
        return durable(request, endpoint, envelope)
    fields.refuse_unknown(envelope, ENVELOPE)
    fields.verify(envelope, ENVELOPE)
    body: dict[str, Any] = envelope["body"]
    inner = body.get("model")
    if inner is not None and inner != envelope["model"]:
        raise errors.InvalidRequest(
            f"'model' is {envelope['model']!r} and 'body.model' is {inner!r}; give one.", param="body.model"
        )
    outer = {
        name: envelope[name] for name in ("model", "priority", "metadata") if envelope.get(name) is not None
    }
    endpoint = _endpoint(context_of(request), envelope.get("endpoint"), envelope["model"])
    return durable(request, endpoint, {**body, **outer})


def edited_body(context: Context, endpoint: str, model: str, body: dict[str, Any]) -> bytes:
    """The body of a requeued job, checked as a new one is."""
    body = {**body, "model": model}
    fields.verify(body, TABLES[endpoint])
    for name in ("priority", "service_tier", "metadata"):
        body.pop(name, None)
    body["model"], _ = context.catalog.for_endpoint(model, endpoint)
    return _encoded(body)


def _encoded(body: dict[str, Any]) -> bytes:
    """The body for the engine. orjson reads deeper nesting than it writes."""
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise errors.InvalidRequest(f"The request body cannot be passed on: {error}.") from error


def _spec(
    context: Context,
    caller: Caller,
    endpoint: str,
    body: dict[str, Any],
    *,
    lane: Lane,
    kept: bool = False,
    durable: bool = False,
) -> JobSpec:
    fields.verify(body, TABLES[endpoint])
    name, model = context.catalog.for_endpoint(body["model"], endpoint)
    processing = context.settings.processing
    metadata = body.pop("metadata", None) or {}
    body["model"] = name
    return JobSpec(
        id=new_job_id(),
        model=name,
        endpoint=endpoint,
        body=_encoded(body),
        lane=lane,
        tenant=caller.tenant,
        durable=durable,
        kept=kept or durable,
        stream=bool(body.get("stream")),
        units=units_of(endpoint, body, model.context),
        max_attempts=processing.retry_attempts,
        run_timeout=model.run_timeout or processing.worker_timeout,
        created_at=time.time(),
        metadata=metadata,
    )


def _lane(request: Request, body: dict[str, Any]) -> Lane:
    """1. `X-Priority`; 2. `priority` of the body; 3. `service_tier`; 4. medium. The body's fields are taken out."""
    header = text_header(request.scope, b"x-priority")
    priority, tier = body.pop("priority", None), body.pop("service_tier", None)
    if header is not None:
        return parse_lane(header, param="X-Priority")
    if priority is not None:
        return parse_lane(priority)
    if tier is not None and not isinstance(tier, str):
        raise fields.wrong_type("service_tier", (fields.STRING,), tier)
    return lane_of_tier(tier) or Lane.MEDIUM


def _on_disconnect(request: Request) -> OnDisconnect:
    text = text_header(request.scope, b"x-on-disconnect") or OnDisconnect.CANCEL
    try:
        return OnDisconnect(text.lower())
    except ValueError:
        legal = " or ".join(OnDisconnect)
        raise errors.InvalidRequest(
            f"X-On-Disconnect must be {legal}, not {text!r}", param="X-On-Disconnect"
        ) from None


def _endpoint(context: Context, named: Any, model: Any) -> str:
    """The endpoint a job names, with or without its version, or the one its model is for."""
    if not isinstance(model, str):
        fields.verify({"model": model}, {"model": ENVELOPE["model"]})
    if named is None:
        return context.catalog.default_endpoint(model)
    endpoint = named.strip("/").removeprefix("openai/").removeprefix("v1/") if isinstance(named, str) else ""
    if endpoint not in TAKES:
        raise errors.InvalidRequest(
            f"Invalid value for 'endpoint': {named!r}. Legal values: {', '.join(TAKES)}.", param="endpoint"
        )
    return endpoint
