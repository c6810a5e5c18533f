"""Dead letters leave: many at once are queued again, or are forgotten for good.

SQL first, one transaction for a batch, then Redis; what dies between the two, or finds Redis away, is queued by the
reconciler. Who may do that, and what changes about a job, is decided before.
"""

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferq import errors
from inferq.config import Settings
from inferq.job import TERMINAL, Job, JobState
from queues.queue import JobQueue
from queues.signals import Signals
from storage import Storage
from storage.dead import Criteria, Revival

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Revived:
    """`requeued` are committed in SQL, `waiting` of them are not in Redis yet; `refused` says why by id."""

    requeued: list[Job]
    waiting: int
    refused: dict[str, errors.InferqError]


class Reviver:
    def __init__(self, queue: JobQueue, storage: Storage, signals: Signals, settings: Settings):
        self._bounds = settings.queue
        self._queue = queue
        self._dead = storage.dead
        self._signals = signals

    async def requeue(self, revivals: Sequence[Revival]) -> Revived:
        """Queue these dead letters again, each within the bounds of a new job. Raises StoreUnavailable, and nothing is
        requeued then.
        """
        refused = await self._reserve(revivals)
        chosen = [each for each in revivals if each.job.id not in refused]
        done, unfit = await self._begin(chosen) if chosen else ([], {})
        refused |= unfit
        for gone in {each.job.id for each in chosen} - {job.id for job in done} - set(unfit):
            refused[gone] = errors.Conflict(f"job {gone} is no dead letter any more")
        queued = {job.id for job in done if job.state is JobState.QUEUED}
        await self._give_up([each for each in chosen if each.job.id not in queued])
        return Revived(done, await self._queue_again(done), refused)

    async def _begin(self, chosen: Sequence[Revival]) -> tuple[list[Job], dict[str, errors.InferqError]]:
        """Their next generation, in one transaction; one by one when one of them cannot wait again for other jobs."""
        try:
            return await self._dead.requeue(chosen, expires_at=self._bounds.expiry(time.time())), {}
        except errors.StoreUnavailable:
            raise
        except errors.InferqError as error:
            if len(chosen) == 1:
                return [], {chosen[0].job.id: error}
        done: list[Job] = []
        refused: dict[str, errors.InferqError] = {}
        for each in sorted(chosen, key=lambda revival: revival.job.id):
            jobs, unfit = await self._begin([each])
            done += jobs
            refused |= unfit
        return done, refused

    async def purge(self, criteria: Criteria, *, limit: int) -> list[str]:
        """Delete dead letters from SQL and from Redis; their ids. Raises StoreUnavailable."""
        gone = await self._dead.purge(criteria, limit=limit)
        try:
            await self._forget(gone)
        except errors.QueueUnavailable as error:
            log.warning("%d purged jobs stay in Redis until they lapse: %s", len(gone), error.message)
        return gone

    async def _reserve(self, revivals: Sequence[Revival]) -> dict[str, errors.InferqError]:
        """Keep a place for each, as for a new job of its tenant; those for which there is none. With Redis away nobody
        can say.
        """
        refused: dict[str, errors.InferqError] = {}
        for each in revivals:
            try:
                await self._queue.reserve(replace(each.job.spec, **each.changes))
            except errors.AtCapacity as error:
                refused[each.job.id] = error
            except errors.QueueUnavailable:
                break
        return refused

    async def _give_up(self, revivals: Sequence[Revival]) -> None:
        """Nothing comes of their places: they are not kept from others until they lapse."""
        with contextlib.suppress(errors.QueueUnavailable):
            for each in revivals:
                await self._queue.release(replace(each.job.spec, **each.changes))

    async def _queue_again(self, jobs: Sequence[Job]) -> int:
        """Put them into Redis; how many wait in SQL alone because Redis is away."""
        # What waits for the jobs that it depends on is queued later.
        fit = [job for job in jobs if job.state is not JobState.SCHEDULED]
        try:
            standings = await self._queue.restore(fit, mode="reserved")
        except errors.QueueUnavailable as error:
            log.warning("up to %d requeued jobs wait for the reconciler: %s", len(fit), error.message)
            return len(fit)
        for job, standing in zip(fit, standings, strict=True):
            if standing is not None:
                self._signals.sent(job.spec, again=True)
                if standing.bell_wanted:
                    self._signals.ring(job.spec.model)
        return 0

    async def _forget(self, ids: Sequence[str]) -> None:
        """A purged job that Redis still shows would look as if it ran: SQL does not know its end."""
        states = await self._queue.generations(list(ids)) if ids else []
        ended = [job_id for job_id, known in zip(ids, states, strict=True) if known and known[0] in TERMINAL]
        if ended:
            await self._queue.forget(ended)
