"""Jobs for the tests of this folder."""

import time

from inferq.job import TERMINAL, Job, JobSpec, JobState, new_job_id
from storage.ledger import Recorded


def spec(**changes) -> JobSpec:
    """A durable job with a new id."""
    values = {
        "id": new_job_id(),
        "model": "demo",
        "endpoint": "chat/completions",
        "body": b'{"messages": []}',
        "durable": True,
        "kept": True,
        "created_at": time.time(),
    }
    return JobSpec(**{**values, **changes})


def event(asked: JobSpec, state: JobState = JobState.SUCCEEDED, **changes) -> Recorded:
    """An event as the finish stream brings it; every field follows from what it says, so equal events are equal."""
    generation, attempt = changes.setdefault("generation", 0), changes.setdefault("attempt", 1)
    values = {
        "queued_at": 10.0 * generation,
        "started_at": generation + attempt / 8,
        "replica": f"r{generation}.{attempt}",
        "finished_at": 100.0 + generation if state in TERMINAL else None,
        "result": f"{generation}/{attempt}/{state}".encode() if state is JobState.SUCCEEDED else None,
    }
    return Recorded(Job(spec=asked, state=state, **{**values, **changes}))
