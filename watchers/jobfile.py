"""What a job file asks for: from its bytes to endpoint, model, lane and the engine's request. Pure.

The file holds ``{endpoint?, model, body, priority?, metadata?}``, or without `body` the request body itself, with
`endpoint` and the other fields about the job beside its own. The rules are the API's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import orjson

from inferq import errors
from inferq.config import Settings
from inferq.lanes import Lane, lane_of_tier, parse_lane

TAKES = {
    "chat/completions": ("chat",),
    "completions": ("completion", "chat"),
    "embeddings": ("embedding",),
}
"""Endpoint to the types of model that serve it; the first one is the type whose default endpoint it is."""
INPUT = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input"}
"""The field without which a request makes no sense."""

_ABOUT_THE_JOB = ("endpoint", "priority", "service_tier", "metadata", "run_at", "webhook")
_ENVELOPE = ("endpoint", "model", "body", "priority", "metadata", "run_at", "webhook")
_UNBUILT = {"run_at": "running a job at a later time", "webhook": "calling a webhook"}
_STREAMING = ("stream", "stream_options")
_BOM = b"\xef\xbb\xbf"
_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512
_CHARACTERS_PER_TOKEN = 4
_ANSWER = 256
"""Tokens of an answer whose length is left open."""
_PART = 512
"""Tokens of an image or a sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A valid request. `body` is what the engine gets."""

    endpoint: str
    model: str
    lane: Lane
    body: bytes
    units: float
    metadata: dict[str, Any] = field(default_factory=dict)


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in a file. Raises InvalidRequest, also for a file that is not written to its end."""
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise errors.InvalidRequest("The file is empty.")
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise errors.InvalidRequest(f"The file is not valid JSON: {error}.") from error
    if not isinstance(found, dict):
        raise errors.InvalidRequest("The file must hold one JSON object.")
    return found


def understand(found: Mapping[str, Any], settings: Settings) -> Asked:
    """What the object asks for. Raises InvalidRequest, ModelNotFound, NotReady."""
    about, body = _divide(found)
    for name, meaning in _UNBUILT.items():
        if name in about:
            raise errors.NotReady(
                f"'{name}': {meaning} is documented but not built in this release.", param=name
            )
    model = _model(about.get("model", body.get("model")), settings)
    endpoint = _endpoint(about.get("endpoint"), model, settings)
    request = {name: value for name, value in body.items() if name not in _STREAMING} | {"model": model}
    _require_input(request, INPUT[endpoint])
    return Asked(
        endpoint=endpoint,
        model=model,
        lane=_lane(about),
        body=_dump(request),
        units=_units(request, endpoint, settings.models[model].context),
        metadata=_metadata(about.get("metadata", {})),
    )


def _dump(request: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(request)
    except orjson.JSONEncodeError as error:
        # It reads deeper structures than it writes.
        raise errors.InvalidRequest(f"The request cannot be passed on: {error}.") from error


def _divide(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what is said about the job, the request). null means "not given"."""
    given = {name: value for name, value in found.items() if value is not None}
    if "body" not in given:
        return _parted(given)
    for name in given:
        if name not in _ENVELOPE:
            raise errors.InvalidRequest(
                f"Unknown field: '{name}'; legal here: {', '.join(_ENVELOPE)}.", param=name
            )
    body = given.pop("body")
    if not isinstance(body, dict):
        raise errors.InvalidRequest("'body' must be a JSON object: the request for the model.", param="body")
    inner, request = _parted({name: value for name, value in body.items() if value is not None})
    return inner | given, request


def _parted(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    about = {name: given[name] for name in _ABOUT_THE_JOB if name in given}
    return about, {name: value for name, value in given.items() if name not in about}


def _model(name: object, settings: Settings) -> str:
    if not isinstance(name, str):
        raise errors.InvalidRequest("Missing required field: 'model', the name of a model.", param="model")
    model = settings.resolve_model(name)
    if model is None:
        raise errors.ModelNotFound(
            f"The model {name!r} does not exist.{_advice(name, settings)}", param="model"
        )
    return model


def _advice(name: str, settings: Settings) -> str:
    known = sorted(
        {*settings.models, *(alias for model in settings.models.values() for alias in model.aliases)}
    )
    near = get_close_matches(name, known, n=3)
    if near:
        return f" Did you mean {' or '.join(repr(each) for each in near)}?"
    return f" Models here: {', '.join(known[:10])}." if known else " No models are configured."


def _endpoint(endpoint: object, model: str, settings: Settings) -> str:
    model_type = settings.models[model].type
    usual = next((name for name, types in TAKES.items() if types[0] == model_type), None)
    if usual is None:
        raise errors.NotReady(
            f"Jobs for models of type {model_type} are not built in this release.", param="model"
        )
    if endpoint is None:
        return usual
    if not isinstance(endpoint, str) or endpoint not in TAKES:
        raise errors.InvalidRequest(
            f"Unknown endpoint {endpoint!r}; there are {', '.join(TAKES)}.", param="endpoint"
        )
    if model_type not in TAKES[endpoint]:
        raise errors.InvalidRequest(
            f"The model {model!r} is of type {model_type} and cannot serve {endpoint}; use {usual}.",
            param="endpoint",
        )
    return endpoint


def _lane(about: Mapping[str, Any]) -> Lane:
    if "priority" in about:
        return parse_lane(about["priority"])
    return lane_of_tier(about.get("service_tier")) or Lane.MEDIUM


def _metadata(value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise errors.InvalidRequest("'metadata' must be an object whose values are texts.", param="metadata")
    if len(value) > _MOST_PAIRS or any(
        len(k) > _LONGEST_KEY or len(v) > _LONGEST_VALUE for k, v in value.items()
    ):
        raise errors.InvalidRequest(
            f"'metadata' holds at most {_MOST_PAIRS} pairs, keys of {_LONGEST_KEY} and values of {_LONGEST_VALUE} "
            "characters.",
            param="metadata",
        )
    return value


def _require_input(request: Mapping[str, Any], name: str) -> None:
    value = request.get(name)
    legal = list if name == "messages" else (str, list)
    if value is None:
        raise errors.InvalidRequest(f"Missing required field: '{name}'.", param=name)
    if not isinstance(value, legal) or (not value and name != "prompt"):
        wanted = "a list of messages" if name == "messages" else "a text, or a list of texts or token ids"
        raise errors.InvalidRequest(f"'{name}' must be {wanted}, and not empty.", param=name)


def _units(request: Mapping[str, Any], endpoint: str, context: int | None) -> float:
    """Tokens of prompt and answer, roughly: the queue corrects the measure by what it learns."""
    prompt = sum(_tokens(each) for each in _listed(request[INPUT[endpoint]]))
    if endpoint == "embeddings":
        return max(1.0, prompt)
    asked = request.get("max_completion_tokens") or request.get("max_tokens")
    answer = asked if isinstance(asked, int) and asked > 0 else min(_ANSWER, context or _ANSWER)
    choices = request.get("n")
    return max(1.0, prompt + answer * (choices if isinstance(choices, int) and choices > 0 else 1))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _tokens(part: Any) -> float:
    """Tokens of a text, a token id, a list of token ids, or a message with its parts."""
    if isinstance(part, str):
        return len(part) / _CHARACTERS_PER_TOKEN
    if isinstance(part, dict):
        return sum(_part_tokens(each) for each in _listed(part.get("content", "")))
    return float(len(part)) if isinstance(part, list) else 1.0


def _part_tokens(part: Any) -> float:
    text = part.get("text") if isinstance(part, dict) else part
    return len(text) / _CHARACTERS_PER_TOKEN if isinstance(text, str) else float(_PART)
