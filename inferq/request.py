"""From what a caller wrote to a checked request: fields, model, lane, defaults. Pure; every way in goes through here.

How a request becomes a job:

1. `check` (or `unfold` and `check`, for the envelope of jobs and job files): fields, model, lane.
2. The files it names become artifacts (`storage.media`), and what was measured of them is put into `files`.
3. `admit` (by way of `inferq.admission`): what the model can never serve is refused before it waits.
4. `job_spec`: the job.

`queues.door` does the second and the third.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from inferq import errors, inputs, webhooks
from inferq.catalog import Catalog
from inferq.config import ModelSettings, Settings
from inferq.endpoints import Body, Endpoint, FileFacts, FilePlace
from inferq.endpoints import fields as tables
from inferq.endpoints.endpoint import asks_for_events
from inferq.endpoints.fields import OBJECT, STRING, Field
from inferq.endpoints.gateway import GATEWAY, MODEL
from inferq.endpoints.length import Prompt
from inferq.job import JobSpec, new_job_id
from inferq.lanes import Lane, lane_of_tier, parse_lane
from inferq.terms import TERMS, Terms

ENVELOPE = {
    "endpoint": Field(
        types=(STRING,), doc="Which endpoint runs it; by default the one that the model's type is for."
    ),
    "model": MODEL,
    "body": Field(
        types=(OBJECT,), required=True, doc="The request as the endpoint itself takes it, `model` aside."
    ),
    "priority": GATEWAY["priority"],
    "metadata": GATEWAY["metadata"],
    **TERMS,
}
"""A job as `POST /v1/jobs` and job files describe it."""


LEAST_CONTEXT = 2048
"""Tokens that every model of text is taken to have, where its configuration does not say."""

MOST_UNITS = 1e12
"""Tokens, seconds or megapixel-steps that a job may come to; sums of these stay exact enough to share time by."""


NOW = Terms()
"""The terms of a call, and of a job that states none."""


@dataclass(slots=True, kw_only=True)
class Request:
    """A checked request. `body` is the engine's, its files still named as the caller did, until they are taken."""

    endpoint: Endpoint
    model: str
    settings: ModelSettings
    body: Body
    lane: Lane
    metadata: dict[str, Any]
    terms: Terms = NOW
    """When its job runs."""
    unfilled: bool = False
    """Parts of the body are still to come from other jobs' results: files among them are not there, nor is its size
    known."""
    files: dict[str, FileFacts] = field(default_factory=dict)
    prompts: tuple[Prompt, ...] = ()
    """What has to fit into the model's context, where that is known."""
    open_ended: bool = False
    """The answer must be bounded, because the engine knows of more context than this request may use."""
    large: bool = False
    """Too much to be looked at while others wait: a thread does."""
    encoded: bytes = b""
    """The body as the engine gets it, once the request is admitted."""
    units: float = 0.0
    """The size of the work, once the request is admitted."""
    _places: tuple[FilePlace, ...] | None = None

    def places(self) -> tuple[FilePlace, ...]:
        """Where the body names files, looked for once. Raises InvalidRequest for a name of the wrong type."""
        if self._places is None:
            found = self.endpoint.files(self.body)
            self._places = tuple(
                place for place in found if not (self.unfilled and inputs.is_place(place.named))
            )
        return self._places

    def change(self, body: Body, metadata: dict[str, Any]) -> None:
        """Put another body in place of this one, before its files are taken. Raises InvalidRequest."""
        tables.verify(body, self.endpoint.table)
        tables.verify({"metadata": metadata}, {"metadata": GATEWAY["metadata"]})
        self.body, self.metadata, self._places = {**body, "model": self.model}, metadata, None
        self.prompts = tuple(self.endpoint.prompts(self.body, self.settings))

    def admit(self) -> None:
        """Raises InvalidRequest for what the model can never serve, or what cannot be passed on."""
        self.endpoint.admit(self.body, self.settings, self.files)
        self.units = self.endpoint.units(self.body, self.settings, self.files)
        if not 0 <= self.units <= MOST_UNITS:  # nor what is no number
            raise errors.InvalidRequest("The request asks for more work than any model can do.")
        self.encoded = encode(self.body)


@dataclass(frozen=True, slots=True)
class Proxy:
    """The model that serves whatever name a request asks for, and the context that it may use of it."""

    model: str
    context: int | None = None


def check(
    catalog: Catalog,
    endpoint: Endpoint,
    body: Body,
    *,
    lane: str | None = None,
    proxy: Proxy | None = None,
    terms: Terms = NOW,
) -> Request:
    """Check a body, which is changed. `lane` wins over what the body says. Raises InvalidRequest, NotFound.

    A body that takes parts of other jobs' results is checked as far as it goes, and again when it is filled: what
    fills it must not meet defaults that were made for less.
    """
    unfilled = bool(terms.depends_on and inputs.places(body, terms.depends_on))
    name, model = find_model(catalog, endpoint, body, proxy=proxy)
    tables.verify(body, endpoint.table)
    endpoint.prepare(body, model)
    most = proxy.context if proxy is not None else None
    if most is not None:
        model = model.model_copy(update={"context": min(most, model.context or most)})
    chosen = _lane(body, lane)
    metadata = body.pop("metadata", None) or {}
    body["model"] = name
    prompts = tuple(endpoint.prompts(body, model))
    if not unfilled:
        endpoint.fill(body, catalog.defaults(endpoint, model), _room(model, prompts))
    return Request(
        endpoint=endpoint,
        model=name,
        settings=model,
        body=body,
        lane=chosen,
        metadata=metadata,
        terms=terms,
        unfilled=unfilled,
        prompts=prompts,
        open_ended=most is not None and bool(endpoint.length) and not _bounded(endpoint, body),
    )


def find_model(
    catalog: Catalog, endpoint: Endpoint, body: Body, *, proxy: Proxy | None = None
) -> tuple[str, ModelSettings]:
    """The model that serves a body, which names it afterwards. Raises InvalidRequest, NotFound."""
    if endpoint.built_in:
        body["model"] = endpoint.built_in
    elif proxy is not None:
        body["model"] = proxy.model
    tables.verify({"model": body.get("model")}, {"model": MODEL})
    return catalog.for_endpoint(body["model"], endpoint)


def _room(model: ModelSettings, prompts: Sequence[Prompt]) -> int:
    """Tokens that the context leaves for certain; less than none where that cannot be said without a tokenizer."""
    return (model.context or LEAST_CONTEXT) - max((prompt.most for prompt in prompts), default=0)


def _bounded(endpoint: Endpoint, body: Body) -> bool:
    return any(body.get(name) is not None for name in endpoint.length)


def unfold(catalog: Catalog, found: dict[str, Any], proxy: Proxy | None = None) -> tuple[Endpoint, Body]:
    """The endpoint and the body of an envelope, or of an object without `body`, which is itself the body.

    What it says about when it runs is for `terms_of`.
    """
    if proxy is not None:
        found = renamed(found, proxy.model)
    if found.get("body") is None:
        body = {name: value for name, value in found.items() if name not in TERMS}
        named = body.pop("endpoint", None)
    else:
        tables.refuse_unknown(found, ENVELOPE)
        body = _joined(found)
        named = found.get("endpoint")
    tables.verify({"model": body.get("model")}, {"model": MODEL})
    return catalog.endpoint(named, body["model"]), body


def renamed(found: dict[str, Any], model: str) -> dict[str, Any]:
    """The same job for another model, whatever model it names."""
    inner = found.get("body")
    if isinstance(inner, dict):
        found = {**found, "body": {name: value for name, value in inner.items() if name != "model"}}
    return {**found, "model": model}


def _joined(found: dict[str, Any]) -> Body:
    """The body with what the envelope says beside it."""
    inner = found["body"]
    if not isinstance(inner, dict):
        raise tables.wrong_type("body", (OBJECT,), inner)
    outer = {name: found[name] for name in ("model", "priority", "metadata") if found.get(name) is not None}
    if inner.get("model") is not None and outer.get("model", inner["model"]) != inner["model"]:
        raise errors.InvalidRequest(
            f"'model' is {outer['model']!r} and 'body.model' is {inner['model']!r}; give one.",
            param="body.model",
        )
    return {**inner, **outer}


def job_spec(request: Request, settings: Settings, **given: Any) -> JobSpec:
    """The job of an admitted request; `given` are the other fields of JobSpec: whose it is, and how it is awaited.

    Raises InvalidRequest for a webhook that may not be named here.
    """
    model, body = request.settings, request.body
    processing, terms, now = settings.processing, request.terms.fields(), time.time()
    if terms["webhook"] is not None:
        terms["webhook"] = webhooks.permitted(terms["webhook"], settings, "webhook")
    if terms["expires_at"] is None and not (terms["due_at"] or terms["depends_on"]):
        # One that waits for something else begins to wait in the queue later.
        terms["expires_at"] = settings.queue.expiry(now)
    return JobSpec(
        **{
            "id": new_job_id(),
            "model": request.model,
            "endpoint": request.endpoint.path,
            "body": request.encoded,
            "lane": request.lane,
            "stream": asks_for_events(body),
            "units": request.units,
            "max_attempts": processing.retry_attempts,
            "run_timeout": model.run_timeout or processing.worker_timeout,
            "created_at": now,
            "metadata": request.metadata,
            **terms,
            **given,
        }
    )


def encode(body: Body) -> bytes:
    """The body for the engine. orjson reads deeper nesting than it writes."""
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise errors.InvalidRequest(f"The request body cannot be passed on: {error}.") from error


def _lane(body: Body, given: str | None) -> Lane:
    """1. What the caller set apart; 2. `priority`; 3. `service_tier`; 4. medium. Both fields leave the body."""
    priority, tier = body.pop("priority", None), body.pop("service_tier", None)
    if given is not None:
        return parse_lane(given, param="X-Priority")
    if priority is not None:
        return parse_lane(priority)
    return lane_of_tier(tier) or Lane.MEDIUM
