"""From a request's body to a JobSpec, for everything the API accepts: who asks, how long, with which files.

Every way into the API that makes a job goes through here. It submits nothing.
"""

import asyncio
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest

from api.auth import Access, Caller
from api.context import caller_of, context_of, headers_of, text_header
from api.departure import UntilDeparture
from inferq import errors, request, webhooks
from inferq.endpoints import ENDPOINTS, Body, Endpoint
from inferq.endpoints.endpoint import asks_for_events
from inferq.job import Job, JobSpec, OnDisconnect
from inferq.lanes import bounded
from inferq.request import NOW, Request
from inferq.terms import Terms, terms_of

LARGE = 256 * 2**10
"""Bytes of a body from which on a thread checks it, so that others are served meanwhile."""


async def interactive(http: HttpRequest, endpoint: Endpoint, body: Body) -> tuple[Request, JobSpec]:
    """The job of a call that waits on its connection."""
    if text_header(http.scope, b"x-webhook") is not None:
        raise errors.InvalidRequest(
            "X-Webhook is for calls that are answered with an id: send `Prefer: respond-async` with it.",
            param="X-Webhook",
        )
    checked = await checked_request(http, endpoint, body)
    kept = _on_disconnect(http) is OnDisconnect.KEEP
    streams = endpoint.streams(checked.body)
    return checked, _spec(http, checked, kept=kept, stream=streams)


async def durable(http: HttpRequest, endpoint: Endpoint, body: Body) -> JobSpec:
    """The job of a call that is answered with an id."""
    terms = _with_header(http, NOW)
    checked = await checked_request(http, endpoint, body, unattended=True, terms=terms)
    return _spec(http, checked, durable=True, kept=True)


async def from_envelope(http: HttpRequest, envelope: dict[str, Any], **given: Any) -> JobSpec:
    """The job that `POST /v1/jobs` describes; `given` are other fields of JobSpec."""
    terms = _with_header(http, terms_of(envelope, now=time.time()))
    endpoint, body = request.unfold(context_of(http).catalog, envelope, http.scope.get("proxy"))
    checked = await checked_request(http, endpoint, body, unattended=True, terms=terms)
    return _spec(http, checked, durable=True, kept=True, **given)


def _with_header(http: HttpRequest, terms: Terms) -> Terms:
    """The terms with the webhook that a header names, unless they name one. Raises InvalidRequest."""
    header = text_header(http.scope, b"x-webhook")
    if header is None:
        return terms
    url = webhooks.permitted(header, context_of(http).settings, "X-Webhook")
    return replace(terms, webhook=terms.webhook or url)


async def checked_request(
    http: HttpRequest, endpoint: Endpoint, body: Body, *, unattended: bool = False, terms: Terms = NOW
) -> Request:
    """The request with its files taken in and measured, and not too big for its model."""
    permit(http, endpoint)
    context = context_of(http)
    lane = text_header(http.scope, b"x-priority")
    proxy = http.scope.get("proxy")
    work = partial(request.check, context.catalog, endpoint, body, lane=lane, proxy=proxy, terms=terms)
    large = _large(http)
    checked = await asyncio.to_thread(work) if large else work()
    checked.large = large
    checked.lane = bounded(checked.lane, caller_of(http).lane)
    await _admit(http, checked, caller_of(http).tenant, unattended=unattended)
    return checked


def permit(http: HttpRequest, endpoint: Endpoint) -> None:
    """Raise Forbidden for an endpoint that is not for this caller, whichever way its jobs are made."""
    if endpoint.admin and caller_of(http).access < Access.ADMIN:
        raise errors.Forbidden(f"/v1/{endpoint.path} needs the role admin.")


async def edited(http: HttpRequest, job: Job, model: str, body: Body) -> dict[str, Any]:
    """What another body changes about a job that is requeued. It is checked as that of a new durable job is."""
    endpoint = ENDPOINTS[job.spec.endpoint]
    checked = request.check(context_of(http).catalog, endpoint, {**body, "model": model})
    await _admit(http, checked, None, unattended=True)
    return {"body": checked.encoded, "stream": asks_for_events(checked.body), "units": checked.units}


async def _admit(
    http: HttpRequest, checked: Request, tenant: str | None, *, unattended: bool = False
) -> None:
    """Raises what `Door.admit` raises, and CallerLeft: nobody's files are fetched for nobody."""
    context = context_of(http)
    try:
        async with UntilDeparture(http.receive) if checked.places() else nullcontext():
            await context.door.admit(
                checked, tenant=tenant, unattended=unattended, host=text_header(http.scope, b"host")
            )
    except errors.AtCapacity as error:
        context.telemetry.job_rejected(checked.model, error.code)
        raise


def _large(http: HttpRequest) -> bool:
    """A body whose length nobody declared may be."""
    declared = headers_of(http.scope).get(b"content-length", b"")
    return not declared.isdigit() or int(declared) >= LARGE


def _spec(http: HttpRequest, checked: Request, **given: Any) -> JobSpec:
    caller: Caller = caller_of(http)
    return request.job_spec(checked, context_of(http).settings, tenant=caller.tenant, **given)


def _on_disconnect(http: HttpRequest) -> OnDisconnect:
    text = text_header(http.scope, b"x-on-disconnect") or OnDisconnect.CANCEL
    try:
        return OnDisconnect(text.lower())
    except ValueError:
        legal = " or ".join(OnDisconnect)
        raise errors.InvalidRequest(
            f"X-On-Disconnect must be {legal}, not {text!r}", param="X-On-Disconnect"
        ) from None
