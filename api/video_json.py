"""A video job in the two shapes that clients know: `video.generation`, and OpenAI's `video`."""

from collections.abc import Callable
from typing import Any

import orjson

from inferq.job import Job, JobState

STATUS = {
    JobState.SCHEDULED: "queued",
    JobState.QUEUED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.EXPIRED: "failed",
}


def generation_json(job: Job, link: Callable[[str], str]) -> dict[str, Any]:
    """The task, and when it is done `data[].url`."""
    done = job.state is JobState.SUCCEEDED and job.artifact
    return {
        "id": job.id,
        "task_id": job.id,
        "object": "video.generation",
        "created": int(job.spec.created_at),
        "model": job.spec.model,
        "status": STATUS[job.state],
        "progress": 1.0 if done else job.progress or 0.0,
        "position": job.position,
        "eta_seconds": job.eta,
        "data": [{"url": link(job.artifact)}] if done and job.artifact else [],
        "error": _error(job),
        "links": {
            "self": f"/v1/video/generations/{job.id}",
            "content": f"/v1/videos/{job.id}/content",
            "job": f"/v1/jobs/{job.id}",
            "cancel": f"/v1/jobs/{job.id}/cancel",
        },
    }


def video_json(job: Job) -> dict[str, Any]:
    """OpenAI's video object; `progress` is in percent."""
    asked: dict[str, Any] = orjson.loads(job.spec.body) if job.spec.body else {}
    done = job.state is JobState.SUCCEEDED
    seconds = asked.get("duration") or asked.get("seconds")
    return {
        "id": job.id,
        "object": "video",
        "model": job.spec.model,
        "status": "failed" if job.state is JobState.CANCELLED else STATUS[job.state],
        "progress": 100 if done else round(100 * (job.progress or 0.0)),
        "created_at": int(job.spec.created_at),
        "completed_at": int(job.finished_at) if done and job.finished_at else None,
        "expires_at": None,
        "prompt": asked.get("prompt"),
        "seconds": None if seconds is None else str(seconds),
        "size": asked.get("size") or asked.get("resolution"),
        "remixed_from_video_id": None,
        "error": _error(job),
    }


def _error(job: Job) -> dict[str, Any] | None:
    return {"code": job.error.code, "message": job.error.message} if job.error and job.terminal else None
