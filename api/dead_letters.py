"""Dead letters over HTTP: which ones a request means, and requeueing many of them as one call.

It reads what the caller wrote, batch by batch asks `Reviver`, and counts. It must not know SQL or Redis.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from starlette.requests import Request

from api import submission
from api.auth import Caller
from api.context import context_of
from api.edits import edits_of, endpoint_of
from inferq import errors
from inferq.config.units import parse_duration
from inferq.inputs import asks_for_results
from inferq.job import Job
from inferq.merge_patch import merged
from inferq.moment import parse_moment
from storage.dead import Criteria, Mark, Revival, mark_of

BATCH = 50
"""Jobs that are requeued in one transaction, and whose bodies are in memory at a time."""


def criteria_of(caller: Caller, given: Mapping[str, Any], *, ids: list[str] | None = None) -> Criteria:
    """The dead letters that a filter means, of those that the caller may see. Raises InvalidRequest."""
    now = time.time()
    moments: dict[str, Any] = {
        name: parse_moment(given[name], now, param=name)
        for name in ("since", "until")
        if given.get(name) is not None
    }
    texts = {name: given.get(name) for name in ("model", "lane", "tenant", "source", "code")}
    found = Criteria(**texts, **moments, ids=None if ids is None else tuple(ids))
    return found if caller.sees_all else replace(found, tenant=caller.tenant)


def chosen(caller: Caller, wanted: Mapping[str, Any]) -> Criteria:
    """The dead letters that a body names. Raises InvalidRequest where it names none and does not say `all`."""
    given = {name: value for name, value in (wanted.get("filter") or {}).items() if value is not None}
    ids, older_than = wanted.get("ids"), wanted.get("older_than")
    if not given and ids is None and older_than is None and wanted.get("all") is not True:
        raise errors.InvalidRequest(
            "Name the dead letters: `ids`, a `filter`, or `all: true` for every one of them.", param="filter"
        )
    found = criteria_of(caller, given, ids=ids)
    if older_than is not None:
        if found.until is not None:
            raise errors.InvalidRequest(
                "'older_than' and 'filter.until' say the same; give one.", param="older_than"
            )
        found = replace(found, until=time.time() - _seconds(older_than))
    return found


def _seconds(value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise errors.InvalidRequest(f"Invalid 'older_than': {error}.", param="older_than") from None
    if not 0 <= seconds <= time.time():
        raise errors.InvalidRequest(
            "Invalid 'older_than': it must be a time that has been.", param="older_than"
        )
    return seconds


@dataclass(slots=True)
class Tally:
    """What a call has done so far; `after` is where the next one goes on, None at the end."""

    requeued: list[str] = field(default_factory=list)
    waiting: int = 0
    refused: list[tuple[str, errors.InferqError]] = field(default_factory=list)
    after: Mark | None = None

    @property
    def matched(self) -> int:
        return len(self.requeued) + len(self.refused)


async def requeue(
    request: Request,
    criteria: Criteria,
    edits: dict[str, Any],
    *,
    cursor: str | None,
    limit: int,
    dry_run: bool,
) -> Tally:
    """Requeue dead letters, the oldest first. What fails again meanwhile belongs to no call that goes on by `after`.

    Raises InvalidRequest for a cursor or a patch, StoreUnavailable when nothing of this call is requeued; when the
    store goes away later, the call ends there and `after` goes on.
    """
    dead, tally = context_of(request).storage.dead, Tally()
    mark = Mark.read(cursor) if cursor else None
    until = min(mark.until if mark else time.time(), criteria.until or float("inf"))
    criteria = replace(criteria, until=until)
    while tally.matched < limit:
        wanted = min(BATCH, limit - tally.matched)
        jobs = await dead.oldest(criteria, mark, limit=wanted + 1)
        here = jobs[:wanted]
        try:
            await _one_batch(request, here, edits, tally, dry_run=dry_run)
        except errors.StoreUnavailable:
            if not tally.matched:
                raise
            tally.after = mark
            return tally
        mark = mark_of(here[-1], until) if here else mark
        tally.after = mark if len(jobs) > wanted else None
        if tally.after is None:
            break
    return tally


async def _one_batch(
    request: Request, jobs: list[Job], edits: dict[str, Any], tally: Tally, *, dry_run: bool
) -> None:
    revivals, refused = [], []
    for job in jobs:
        try:
            revivals.append(await _revival(request, job, edits))
        except errors.StoreUnavailable:
            raise
        except errors.InferqError as error:
            refused.append((job.id, error))
    if dry_run:
        tally.requeued += [each.job.id for each in revivals]
    elif revivals:
        done = await context_of(request).gateway.reviver.requeue(revivals)
        tally.requeued += [job.id for job in done.requeued]
        tally.waiting += done.waiting
        refused += done.refused.items()
    tally.refused += refused


async def _revival(request: Request, job: Job, edits: dict[str, Any]) -> Revival:
    """Raises InferqError for a job that cannot run, as it is or with these edits."""
    if not job.spec.body:
        raise errors.Conflict(f"the request of job {job.id} was not kept; submit it again")
    submission.permit(request, endpoint_of(job))
    wanted = dict(edits)
    if edits.get("body") is not None:
        if job.spec.depends_on and asks_for_results(job.spec.body):
            raise errors.Conflict(
                f"Job {job.id} was never filled with other jobs' results; requeue it by itself, with a whole body."
            )
        wanted["body"] = merged(orjson.loads(job.spec.body), edits["body"])
    return Revival(job, await edits_of(request, job, wanted))
