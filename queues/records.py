"""How a job is written in its Redis hash, and read back. The only place that knows the field names besides the Lua."""

from dataclasses import replace
from typing import Any

import orjson

from inferq.job import Failure, Job, JobSpec, JobState
from inferq.lanes import Lane

RUN = ("state", "attempt", "started", "replica", "progress")
"""What changes about a job when it is claimed."""


def fields_of(spec: JobSpec, reply_to: str | None) -> list[Any]:
    """Field, value, ... beyond those that `accept.lua` writes itself."""
    fields: list[Any] = [
        *("endpoint", spec.endpoint, "body", spec.body, "max", spec.max_attempts, "source", spec.source),
        *("run_timeout", spec.run_timeout, "created", repr(spec.created_at)),
    ]
    for name, flag in (
        ("durable", spec.durable),
        ("kept", spec.kept or spec.durable),
        ("stream", spec.stream),
    ):
        if flag:
            fields += [name, "1"]
    if spec.due_at is not None:
        fields += ["run_at", repr(spec.due_at)]
    if spec.depends_on:
        fields += ["needs", orjson.dumps(spec.depends_on)]
    if spec.group:
        fields += ["group", spec.group]
    if spec.metadata:
        fields += ["metadata", orjson.dumps(spec.metadata)]
    if reply_to:
        fields += ["reply", reply_to]
    return fields


def pairs(flat: list[bytes]) -> dict[str, bytes]:
    """A flat list of field, value, ... as a mapping."""
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


def job_of(job_id: str, record: dict[str, bytes]) -> Job:
    """The job that a hash describes."""

    def word(name: str, default: str = "") -> str:
        value = record.get(name)
        return default if value is None else value.decode()

    def number(name: str) -> float | None:
        value = record.get(name)
        return None if value is None else float(value)

    spec = JobSpec(
        id=job_id,
        model=word("model"),
        endpoint=word("endpoint"),
        body=record.get("body", b""),
        lane=Lane(word("lane", "medium")),
        tenant=word("tenant", "default"),
        durable="durable" in record,
        kept="kept" in record,
        stream="stream" in record,
        units=number("units") or 0.0,
        max_attempts=int(word("max", "1")),
        source=word("source", "api"),
        run_timeout=number("run_timeout") or 0.0,
        created_at=number("created") or 0.0,
        metadata=orjson.loads(record["metadata"]) if "metadata" in record else {},
        # The end of a pause before another attempt, else the time that it was scheduled for.
        due_at=number("due") or number("run_at"),
        expires_at=number("expires"),
        depends_on=tuple(orjson.loads(record["needs"])) if "needs" in record else (),
        group=word("group") or None,
    )
    return Job(
        spec=spec,
        state=JobState(word("state")),
        generation=int(word("gen", "0")),
        attempt=int(word("attempt", "0")),
        error=failure_of(record["error"]) if "error" in record else None,
        result=record.get("result"),
        result_type=word("rtype", "application/json"),
        artifact=word("artifact") or None,
        queued_at=number("queued"),
        started_at=number("started"),
        finished_at=number("finished"),
        replica=word("replica") or None,
        progress=number("progress"),
        device_seconds=number("used"),
        served_by=word("served") or None,
    )


def running(job: Job, values: list[bytes | None]) -> Job:
    """The job with the values of RUN that its hash has; the same when it does not run."""
    record = {name: value for name, value in zip(RUN, values, strict=True) if value is not None}
    if record.get("state") != JobState.RUNNING.encode():
        return job
    run = job_of(job.id, record)
    return replace(
        job,
        state=run.state,
        attempt=run.attempt,
        started_at=run.started_at,
        replica=run.replica,
        progress=run.progress,
    )


def failure_of(text: bytes) -> Failure:
    """A failure from its JSON."""
    value = orjson.loads(text)
    return Failure(
        code=str(value.get("code", "internal_error")),
        message=str(value.get("message", "")),
        status=int(value.get("status", 500)),
        param=value.get("param"),
    )


def failure_text(failure: Failure) -> bytes:
    """The JSON of a failure, as `failure_of` reads it and as ERROR frames carry it."""
    return orjson.dumps(failure.as_dict())
