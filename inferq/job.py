"""The job: what was asked (`JobSpec`) and where it stands (`JobState`).

States, who puts a job there, who takes it out:

- ``scheduled``  waits for its time (`run_at`, the pause before another attempt) or for the jobs it depends on; the
                 scheduler queues it when that has come.
- ``queued``     waits in its model's ready set; a replica's claim takes it out, or a cancel, or its deadline.
- ``running``    an attempt holds a lease; finish, hand-back, a lost lease or a cancel take it out.
- ``succeeded``  the result is committed. Final.
- ``failed``     attempts are used up or the error is permanent: the dead-letter set. Only a requeue leaves it.
- ``cancelled``  somebody asked for it. Only a requeue leaves it.
- ``expired``    its deadline passed while it waited. Only a requeue leaves it.
"""

import os
import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from inferq.lanes import Lane


class JobState(StrEnum):
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})

RANK: dict[JobState, int] = {
    JobState.SCHEDULED: 0,
    JobState.QUEUED: 1,
    JobState.RUNNING: 2,
    **dict.fromkeys(TERMINAL, 3),
}
"""Within one generation and attempt a stored row only moves to a higher rank."""


class OnDisconnect(StrEnum):
    """What happens to an interactive job whose caller leaves."""

    CANCEL = "cancel"
    KEEP = "keep"


class OnDependencyFailure(StrEnum):
    """What becomes of a job when one that it waits for does not succeed."""

    FAIL = "fail"
    RUN = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What was asked; immutable. `body` is the engine's request, JSON as bytes, gateway fields already removed.

    `units` is the size of the work in the model's own measure (tokens for text); the queue turns it into device
    seconds by what it has learnt of the model. `kept` is true for durable jobs and for calls with
    ``X-On-Disconnect: keep``: their result outlives the caller.

    `due_at` and `depends_on` are what a scheduled job waits for; `expires_at` is when it is given up if it has not
    started. `webhook` is where its end is told, `group` the group it is counted in; only durable jobs have these.
    """

    id: str
    model: str
    endpoint: str
    body: bytes
    lane: Lane = Lane.MEDIUM
    tenant: str = "default"
    durable: bool = False
    kept: bool = False
    stream: bool = False
    units: float = 1.0
    max_attempts: int = 3
    source: str = "api"
    run_timeout: float = 600.0
    created_at: float = 0.0
    metadata: dict[str, Any] = field(default_factory=dict)
    due_at: float | None = None
    expires_at: float | None = None
    depends_on: tuple[str, ...] = ()
    on_dependency_failure: OnDependencyFailure = OnDependencyFailure.FAIL
    webhook: str | None = None
    group: str | None = None

    @property
    def waits(self) -> bool:
        """A new job that is scheduled first. One that was due keeps its `due_at`."""
        return self.due_at is not None or bool(self.depends_on)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job did not succeed. `status` is the HTTP status an interactive caller gets."""

    code: str
    message: str
    status: int = 500
    param: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "status": self.status, "param": self.param}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as a reader sees it, whether it came from Redis or from SQL. Times are Unix seconds (UTC).

    `result` is what the engine answered (bytes of `result_type`), or None; `artifact` names the sha256 of a result
    too big for a record. `position` is 1 for the next to run; `eta` is in seconds from now. `device_seconds` is what
    its attempts have used; `served_by` is the model that ran it, when that was not the one asked for.
    """

    spec: JobSpec
    state: JobState
    generation: int = 0
    attempt: int = 0
    error: Failure | None = None
    result: bytes | None = None
    result_type: str = "application/json"
    artifact: str | None = None
    queued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    replica: str | None = None
    progress: float | None = None
    device_seconds: float | None = None
    served_by: str | None = None
    position: int | None = None
    eta: float | None = None

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL


def new_job_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): sorts by creation time, so ties in a queue go first come first."""
    millis = time.time_ns() // 1_000_000
    value = (millis << 80) | int.from_bytes(os.urandom(10), "big")
    value &= ~(0xF000 << 64) & ~(0xC000 << 48)
    value |= (0x7000 << 64) | (0x8000 << 48)
    return str(uuid.UUID(int=value))


def is_job_id(text: str) -> bool:
    """True for the canonical lowercase form of a UUID, the only one the API takes."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
