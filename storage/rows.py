"""Jobs to rows and back: pure mapping, no statements and no connection."""

import time
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, RowMapping, literal, null

from inferq.job import RANK, TERMINAL, Failure, Job, JobSpec, JobState, OnDependencyFailure
from inferq.lanes import Lane
from storage.tables import jobs
from storage.texts import clean, clean_or_none

WHOLE: tuple[ColumnElement[Any], ...] = tuple(jobs.c)
"""Everything about a job."""
BRIEF: tuple[ColumnElement[Any], ...] = (
    *(column for column in jobs.c if column.name not in {"body", "result"}),
    literal(b"", LargeBinary).label("body"),
    null().label("result"),
)
"""Everything but what was asked and what came out, which lists do not show and may be large."""

STANDING = (
    "state", "rank", "generation", "attempt", "in_queue", "delivered",
    "queued_at", "started_at", "finished_at", "replica", "progress", "artifact", "result_type", "result",
    "error_code", "error_message", "error_status", "error_param", "device_seconds", "served_by",
)  # fmt: skip
"""The columns that an event changes; the others say what was asked."""


def spec_values(spec: JobSpec) -> dict[str, Any]:
    """The columns that say what was asked."""
    return {
        "id": spec.id,
        "model": clean(spec.model),
        "endpoint": clean(spec.endpoint),
        "lane": spec.lane.value,
        "tenant": clean(spec.tenant),
        "source": clean(spec.source),
        "durable": spec.durable,
        "kept": spec.kept,
        "stream": spec.stream,
        "units": spec.units,
        "max_attempts": spec.max_attempts,
        "run_timeout": spec.run_timeout,
        "created_at": spec.created_at,
        "metadata": spec.metadata,
        "due_at": spec.due_at,
        "depends_on": _dependencies(spec),
        "expires_at": spec.expires_at,
        "webhook": clean_or_none(spec.webhook),
        "group_id": spec.group,
        "body": spec.body,
    }


def standing_values(job: Job) -> dict[str, Any]:
    """The columns that say where the job stands."""
    error = job.error
    return {
        "state": job.state.value,
        "rank": RANK[job.state],
        "generation": job.generation,
        "attempt": job.attempt,
        "queued_at": job.queued_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "replica": clean_or_none(job.replica),
        "progress": job.progress,
        "artifact": job.artifact,
        "result_type": clean(job.result_type),
        "result": job.result,
        "error_code": clean(error.code) if error else None,
        "error_message": clean(error.message) if error else None,
        "error_status": error.status if error else None,
        "error_param": clean_or_none(error.param) if error else None,
        "device_seconds": job.device_seconds,
        "served_by": clean_or_none(job.served_by),
    }


def accepted_values(spec: JobSpec, state: JobState, error: Failure | None) -> dict[str, Any]:
    """The standing of a job that is new to SQL; one that is filed as ended has ended now."""
    job = Job(
        spec=spec,
        state=state,
        error=error,
        queued_at=spec.created_at if state is JobState.QUEUED else None,
        finished_at=time.time() if state in TERMINAL else None,
    )
    return {**standing_values(job), "delivered": False}


def end_values(state: JobState, failure: Failure | None) -> dict[str, Any]:
    """The standing of a job that ends now without a run."""
    return {
        "state": state.value,
        "rank": RANK[state],
        "finished_at": time.time(),
        "error_code": failure.code if failure else None,
        "error_message": clean(failure.message) if failure else None,
        "error_status": failure.status if failure else None,
        "error_param": clean_or_none(failure.param) if failure else None,
    }


def requeued_values(generation: int, *, waits: bool = False) -> dict[str, Any]:
    """The standing of a job whose next generation begins now; `waits`: it is scheduled first.

    Redis does not hold it yet, and its times and what it waited for were the earlier generation's.
    """
    state = JobState.SCHEDULED if waits else JobState.QUEUED
    fresh = {
        **dict.fromkeys(STANDING),
        "state": state.value,
        "rank": RANK[state],
        "generation": generation,
        "attempt": 0,
        "queued_at": None if waits else time.time(),
        "result_type": "application/json",
        "in_queue": waits,
        "delivered": False,
        "due_at": None,
    }
    return fresh if waits else {**fresh, "depends_on": []}


def recorded_values(job: Job) -> dict[str, Any]:
    """A whole row for an event from Redis, which therefore holds or held the job."""
    return {**spec_values(job.spec), **standing_values(job), "in_queue": True, "delivered": False}


def job_of(row: RowMapping) -> Job:
    """The job that a row (WHOLE or BRIEF) stands for."""
    return Job(
        spec=_spec_of(row),
        state=JobState(row["state"]),
        generation=row["generation"],
        attempt=row["attempt"],
        error=_failure_of(row),
        result=row["result"],
        result_type=row["result_type"],
        artifact=row["artifact"],
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        replica=row["replica"],
        progress=row["progress"],
        device_seconds=row["device_seconds"],
        served_by=row["served_by"],
    )


def _spec_of(row: RowMapping) -> JobSpec:
    return JobSpec(
        id=row["id"],
        model=row["model"],
        endpoint=row["endpoint"],
        body=row["body"],
        lane=Lane(row["lane"]),
        tenant=row["tenant"],
        durable=row["durable"],
        kept=row["kept"],
        stream=row["stream"],
        units=row["units"],
        max_attempts=row["max_attempts"],
        source=row["source"],
        run_timeout=row["run_timeout"],
        created_at=row["created_at"],
        metadata=row["metadata"],
        due_at=row["due_at"],
        **_awaited(row["depends_on"]),
        expires_at=row["expires_at"],
        webhook=row["webhook"],
        group=row["group_id"],
    )


def _dependencies(spec: JobSpec) -> Any:
    if not spec.depends_on:
        return []
    return {"ids": list(spec.depends_on), "on_failure": spec.on_dependency_failure.value}


def _awaited(found: Any) -> dict[str, Any]:
    """The fields of JobSpec that the column `depends_on` stands for."""
    if not found:
        return {}
    return {
        "depends_on": tuple(found["ids"]),
        "on_dependency_failure": OnDependencyFailure(found["on_failure"]),
    }


def _failure_of(row: RowMapping) -> Failure | None:
    if row["error_code"] is None:
        return None
    return Failure(
        code=row["error_code"],
        message=row["error_message"],
        status=row["error_status"],
        param=row["error_param"],
    )
