"""What people write, turned into the jobs that the API takes. It must not send anything."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from inferq import errors

CHAT, COMPLETIONS, EMBEDDINGS = "chat/completions", "completions", "embeddings"
_TYPES = {CHAT: "chat", COMPLETIONS: "completion", EMBEDDINGS: "embedding"}
_ENDPOINTS = {model_type: endpoint for endpoint, model_type in _TYPES.items()}
_TERMS = ("run_at", "expires_at", "expires_in", "depends_on", "on_dependency_failure")
_JOB_FIELDS = ("endpoint", "model", "priority", "metadata", "webhook", *_TERMS)


def from_prompt(text: str, endpoint: str) -> dict[str, Any]:
    """A job whose body is the plainest one with this text for the endpoint."""
    if endpoint == EMBEDDINGS:
        return {"body": {"input": text}}
    if endpoint == COMPLETIONS:
        return {"body": {"prompt": text}}
    return {"body": {"messages": [{"role": "user", "content": text}]}}


def parse(text: str, name: str, endpoint: str) -> list[dict[str, Any]]:
    """The jobs in a file: a JSON object, an array of them, or one per line; any other text is a prompt."""
    if not text.strip():
        raise errors.InvalidRequest(f"{name} is empty")
    try:
        found = json.loads(text)
    except ValueError:
        found = _lines(text, name)
    if found is None:
        return [from_prompt(text.strip(), endpoint)]
    jobs = found if isinstance(found, list) else [found]
    for number, job in enumerate(jobs, 1):
        if not isinstance(job, dict):
            raise errors.InvalidRequest(f"{name}: job {number} is not a JSON object")
    return [_with_body(job) for job in jobs]


def complete(
    job: dict[str, Any], chosen: Mapping[str, str], models: Callable[[], list[dict[str, Any]]]
) -> dict[str, Any]:
    """The job with what the command line chose, and with a model and an endpoint in any case."""
    job = {**job, **{name: value for name, value in chosen.items() if value}}
    if job.get("model") and job.get("endpoint"):
        return job
    available = models()
    if not job.get("model"):
        job["model"] = _first_model(available, _TYPES.get(job.get("endpoint") or _guess(job["body"]), "chat"))
    if not job.get("endpoint"):
        job["endpoint"] = _guess(job["body"], _type_of(available, job["model"]))
    return job


def _lines(text: str, name: str) -> list[Any] | None:
    """One JSON value per line; None when the first line is no object, so that the text is a prompt."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines[0].lstrip().startswith("{"):
        return None
    jobs = []
    for number, line in enumerate(lines, 1):
        try:
            jobs.append(json.loads(line))
        except ValueError as error:
            raise errors.InvalidRequest(f"{name}, line {number} is not valid JSON: {error}") from error
    return jobs


def _with_body(job: dict[str, Any]) -> dict[str, Any]:
    """An object without `body` is itself the body; the fields that are about the job are taken out of it."""
    if "body" in job:
        return job
    fields = {name: job[name] for name in _JOB_FIELDS if name in job}
    return {**fields, "body": {name: value for name, value in job.items() if name not in fields}}


def _guess(body: Mapping[str, Any], model_type: str | None = None) -> str:
    if "messages" in body:
        return CHAT
    if "prompt" in body:
        return COMPLETIONS
    return EMBEDDINGS if "input" in body else _ENDPOINTS.get(model_type or "chat", CHAT)


def _first_model(models: list[dict[str, Any]], wanted: str) -> str:
    # A chat model also completes plain prompts.
    types = {wanted, "chat"} if wanted == "completion" else {wanted}
    for model in models:
        if model.get("info", {}).get("type") in types:
            return str(model["id"])
    raise errors.ModelNotFound(f"the server has no model of type {wanted}; name one with --model")


def _type_of(models: list[dict[str, Any]], name: str) -> str | None:
    for model in models:
        info = model.get("info", {})
        if name == model["id"] or name in info.get("aliases", ()):
            return str(info.get("type"))
    return None
