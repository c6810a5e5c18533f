"""`Attempts`: what a replica does with jobs: claim, keep, answer, finish. Each call proves itself by its token."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from inferq.config import Settings
from inferq.job import Failure, Job
from queues import frames, records
from queues.connection import Client, translated
from queues.scripts import Scripts

LINGER = 1.0
"""Seconds that a slot which found no job waits for a wake. No longer than a replica's own look at its ready set: by
then a wake that went to a dead replica is made good."""


def _token() -> str:
    return secrets.token_hex(frames.TOKEN_LENGTH // 2)


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETRY = "retry"
    """Run again if attempts are left, else failed."""
    HANDBACK = "handback"
    """The replica stops; the attempt does not count."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job and the right to finish it. `reply_to` names the api process that waits, if any."""

    job: Job
    token: str
    reply_to: str | None

    @property
    def id(self) -> str:
        return self.job.spec.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The end of an attempt. `seconds` is its share of device time; `frame` goes to the caller when this is final;
    `delay` is the pause before another attempt, in seconds.
    """

    outcome: Outcome
    seconds: float = 0.0
    delay: float = 0.0
    frame: bytes = b""
    result: bytes | None = None
    result_type: str = "application/json"
    artifact: str | None = None
    failure: Failure | None = None

    def fields(self) -> list[Any]:
        fields: list[Any] = []
        if self.result is not None:
            fields += ["result", self.result, "rtype", self.result_type]
        if self.artifact:
            fields += ["artifact", self.artifact, "rtype", self.result_type]
        if self.failure:
            fields += ["error", records.failure_text(self.failure)]
        return fields


@dataclass(frozen=True, slots=True)
class Operation:
    """One finish, however often it has to be called: its id, and the token of the job that it may claim."""

    id: str = field(default_factory=_token)
    next_token: str = field(default_factory=_token)


class Attempts:
    """Leases of one replica of one model. Methods raise QueueUnavailable when Redis is away."""

    def __init__(self, redis: Client, settings: Settings, model: str, replica: str, node: str = ""):
        self._scripts = Scripts(redis, settings.queue)
        self._redis = redis
        self._prefix = settings.queue.prefix
        self._model = model
        self._replica = replica
        self._node = node
        self.lease = settings.queue.lease

    async def claim(self, slot: str = "") -> Attempt | None:
        """The best waiting job, now leased to this replica.

        When there is none, the slot (16 characters), if one is named, counts as lingering for `LINGER` seconds.
        """
        flat = [b"again"]
        while flat == [b"again"]:
            async with translated():
                flat = await self._scripts(
                    "claim",
                    *(_token(), self._model, self._replica, self._node, _token()),
                    *(self.lease, slot, LINGER),
                )
        return _attempt(flat)

    async def linger_no_more(self, slots: Iterable[str]) -> None:
        """Take slots of this replica off the list of those that linger."""
        members = [slot + self._replica for slot in slots]
        if members:
            async with translated():
                await self._redis.zrem(f"{self._prefix}linger:{self._model}", *members)

    async def waiting(self) -> int:
        """How many jobs wait for the model."""
        async with translated():
            return int(await self._redis.hget(f"{self._prefix}order:{self._model}", "jobs") or 0)

    async def finish(
        self,
        attempt: Attempt,
        finish: Finish,
        *,
        claim_next: bool,
        slot: str = "",
        operation: "Operation | None" = None,
    ) -> tuple[str, Attempt | None]:
        """(state the job is in now, the next job). `stale`: the attempt was no longer trusted, nothing was written.

        With `claim_next` this is also a `claim` for the slot. Called again with the same `operation` after an error it
        gets the first call's answer, if there was one.
        """
        operation = operation or Operation()
        async with translated():
            state, flat = await self._scripts(
                "finish",
                *(
                    operation.id,
                    attempt.id,
                    attempt.token,
                    finish.outcome.value,
                    repr(finish.seconds),
                    repr(finish.delay),
                    finish.frame,
                ),
                *("1" if claim_next else "0", self._model, self._replica, self._node),
                *(operation.next_token, self.lease, slot, LINGER),
                *finish.fields(),
            )
        return state.decode(), _attempt(flat)

    async def renew(self, running: Sequence[tuple[str, str, float | None]]) -> list[bool]:
        """Keep the leases of (job, token, progress); False where the attempt is no longer trusted."""
        args: list[Any] = []
        for job_id, token, progress in running:
            args += [job_id, token, "" if progress is None else f"{progress:.4f}"]
        async with translated():
            return [answer == b"ok" for answer in await self._scripts("renew", self.lease, *args)]

    async def first_byte(self, attempt: Attempt, frame: bytes) -> bool:
        """Send the first part of an answer; False when the attempt is no longer trusted and nothing was sent."""
        async with translated():
            return bool(await self._scripts("first_byte", attempt.id, attempt.token, frame))

    async def fail_waiting(self, failure: Failure, *, limit: int = 100) -> int:
        """Fail up to `limit` of the jobs that wait for a model which cannot be loaded; the number failed."""
        async with translated():
            ids = await self._scripts(
                "fail_waiting", self._model, limit, failure.code, failure.message, failure.status
            )
        return len(ids)


def error_frame(job_id: str, token: str, failure: Failure) -> bytes:
    """The frame that tells a caller of a failure."""
    return frames.pack(job_id, frames.FrameKind.ERROR, token, 0, records.failure_text(failure))


def _attempt(flat: list[bytes]) -> Attempt | None:
    if not flat:
        return None
    record = records.pairs(flat)
    reply_to = record.get("reply")
    return Attempt(
        job=records.job_of(record["id"].decode(), record),
        token=record["token"].decode(),
        reply_to=reply_to.decode() if reply_to else None,
    )
