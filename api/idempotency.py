"""`Idempotency-Key`: whether a request was made before, and what it made then: a job or a group. Answers nothing."""

from dataclasses import dataclass, replace
from http import HTTPStatus

from starlette.requests import Request

from api.context import caller_of, context_of
from api.fingerprint import fingerprint_of
from inferq import errors
from inferq.job import Job, JobState, new_job_id
from storage.groups import Group
from storage.idempotency import Claim, mismatch

REPLAYED = "Idempotent-Replayed"


@dataclass(frozen=True, slots=True)
class Turn:
    """`earlier` is the job that the same request has made, or `group` the group; else `claim` is what makes a new one.
    None of them without a key.
    """

    claim: Claim | None = None
    earlier: Job | None = None
    group: Group | None = None


async def turn_of(request: Request, job_id: str | None = None) -> Turn:
    """To be asked when the body was read, and before anything is done with it. `job_id`: what the request is about, or
    makes, where the id of a new job will not do.

    1. Nobody used the key. 2. What it stood for never came to be, or was lost by the system: the key is free, and the
    same request takes the same id. 3. Another request used it: raises IdempotencyMismatch. 4. The same did.
    """
    claim = _claim_of(request, job_id or new_job_id())
    if claim is None:
        return Turn()
    held = await context_of(request).storage.claims.find(claim)
    if held is None:
        return Turn(claim)
    job = await find_or_none(request, held.job_id)
    group = await context_of(request).storage.groups.get(held.job_id) if job is None else None
    same = held.digest == claim.digest
    if (job is None or _lost(job)) and group is None:
        again = held.job_id if job is None and same else claim.job_id
        return Turn(replace(claim, job_id=again, instead_of=held.job_id))
    if not same:
        raise mismatch()
    return Turn(claim, job, group)


def _claim_of(request: Request, job_id: str) -> Claim | None:
    """What a request claims for what it makes; None without a key."""
    fingerprint = fingerprint_of(request)
    if fingerprint is None:
        return None
    return Claim(
        tenant=caller_of(request).tenant,
        key=fingerprint.key,
        digest=fingerprint.hexdigest(),
        ttl=context_of(request).settings.api.idempotency_ttl,
        job_id=job_id,
    )


async def find_or_none(request: Request, job_id: str) -> Job | None:
    try:
        return await context_of(request).gateway.intake.find(job_id)
    except errors.JobNotFound:
        return None


def _lost(job: Job) -> bool:
    """An interactive job that ended with "come back later" is as good as refused."""
    if job.spec.durable or job.state is not JobState.FAILED or job.error is None:
        return False
    return job.error.status == HTTPStatus.SERVICE_UNAVAILABLE
