"""A job as JSON, the one form in which the API shows it."""

from collections.abc import Callable
from typing import Any

import orjson

from api.pictures import linked
from inferq.endpoints import ENDPOINTS, Answer
from inferq.job import Job

JSON = "application/json"
Link = Callable[[str], str]


def job_json(job: Job, link: Link | None = None, *, whole: bool = True) -> dict[str, Any]:
    """`whole`: with the result, when it is JSON that the record holds; others are behind `links.result`.

    `link` makes links to artifacts that open without a key, of a result and of the pictures in it.
    """
    spec, here = job.spec, f"/v1/jobs/{job.id}"
    shown: dict[str, Any] = {
        "id": job.id,
        "object": "job",
        "model": spec.model,
        "endpoint": spec.endpoint,
        "state": job.state,
        "lane": spec.lane,
        "tenant": spec.tenant,
        "source": spec.source,
        "durable": spec.durable,
        "kept": spec.kept or spec.durable,
        "generation": job.generation,
        "attempt": job.attempt,
        "max_attempts": spec.max_attempts,
        "created_at": spec.created_at or None,
        "due_at": spec.due_at,
        "expires_at": spec.expires_at,
        "depends_on": list(spec.depends_on),
        "group": spec.group,
        "queued_at": job.queued_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "position": job.position,
        "eta_seconds": job.eta,
        "progress": job.progress,
        "replica": job.replica,
        "error": job.error.as_dict() if job.error else None,
        "artifact": job.artifact,
        "metadata": spec.metadata,
        "webhook": spec.webhook,
        "links": {
            "self": here,
            "cancel": f"{here}/cancel",
            "events": f"{here}/events",
            "result": f"{here}/result",
        },
    }
    if whole:
        shown["result"] = _result(job, link)
        shown["artifact_url"] = link(job.artifact) if link and job.artifact else None
    return shown


def _result(job: Job, link: Link | None) -> Any:
    if job.result is None or not job.result_type.startswith(JSON):
        return None
    try:
        result = orjson.loads(job.result)
    except orjson.JSONDecodeError:
        return None
    pictures = job.spec.endpoint in ENDPOINTS and ENDPOINTS[job.spec.endpoint].answer is Answer.PICTURES
    return linked(result, link) if link and pictures else result
