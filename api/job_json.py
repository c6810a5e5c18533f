"""A job as JSON, the one form in which the API shows it."""

from typing import Any

import orjson

from inferq.job import Job

JSON = "application/json"


def job_json(job: Job, *, whole: bool = True) -> dict[str, Any]:
    """`whole`: with the result, when it is JSON that the record holds; others are behind `links.result`."""
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
        "links": {
            "self": here,
            "cancel": f"{here}/cancel",
            "events": f"{here}/events",
            "result": f"{here}/result",
        },
    }
    if whole:
        shown["result"] = _result(job)
    return shown


def _result(job: Job) -> Any:
    if job.result is None or not job.result_type.startswith(JSON):
        return None
    try:
        return orjson.loads(job.result)
    except orjson.JSONDecodeError:
        return None
