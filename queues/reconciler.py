"""The reconciler: SQL and Redis agree again, whatever was lost between them. Both ways.

1. Unfinished in SQL, unknown to Redis or known there only as an earlier generation that has ended: queued again from
   the row as it is now.
2. Ended in SQL, still live in Redis (a cancel that Redis did not hear of): leaves Redis.
"""

import logging

from inferq import errors, failpoints
from inferq.config import Settings
from inferq.job import TERMINAL, Job, JobState
from inferq.lanes import Lane
from queues.connection import Client, translated
from queues.intake import CANCELLED
from queues.queue import JobQueue
from queues.signals import Signals
from storage.ledger import Ledger

log = logging.getLogger(__name__)

PAGE = 500


class Reconciler:
    def __init__(self, redis: Client, queue: JobQueue, ledger: Ledger, signals: Signals, settings: Settings):
        self._redis = redis
        self._queue = queue
        self._ledger = ledger
        self._signals = signals
        self._prefix = settings.queue.prefix

    async def run_once(self) -> tuple[int, int]:
        """(jobs queued again, jobs taken out of Redis)."""
        return await self._restore(), await self._remove()

    async def _restore(self) -> int:
        restored, after = 0, ""
        while rows := await self._ledger.unfinished(after=after, limit=PAGE):
            after = rows[-1].id
            held = await self._queue.generations([row.id for row in rows])
            known = []
            for row, there in zip(rows, held, strict=True):
                if not _missing(row, there):
                    known.append(row.id)
                elif await self._put_back(row.id):
                    restored += 1
                    known.append(row.id)
            await self._ledger.mark_queued(known)
        if restored:
            log.warning("%d jobs that Redis did not know were queued again", restored)
        return restored

    async def _put_back(self, job_id: str) -> bool:
        """Queue a job from its row as it is now. Creating is refused where Redis has it after all."""
        row: Job | None = await self._ledger.get(job_id)
        if row is None or row.terminal or row.state is JobState.SCHEDULED:
            return False
        try:
            standing = await self._queue.accept(row.spec, "restore", generation=row.generation)
        except errors.InvalidRequest as error:
            # One row must not keep the others out.
            log.warning("job %s cannot be queued again: %s", job_id, error.message)
            return False
        if standing is None:
            return False
        failpoints.reach("reconciler.restored")
        if standing.bell_wanted:
            self._signals.ring(row.spec.model)
        return True

    async def _remove(self) -> int:
        removed = 0
        live = await self._live()
        for start in range(0, len(live), PAGE):
            for row in await self._ledger.ended_among(live[start : start + PAGE]):
                current = await self._queue.get(row.id)
                if current and not current.terminal and current.generation <= row.generation:
                    failpoints.reach("reconciler.removing")
                    await self._queue.cancel(row.id, CANCELLED, generation=row.generation)
                    removed += 1
        if removed:
            log.warning("%d jobs that had ended were taken out of Redis", removed)
        return removed

    async def _live(self) -> list[str]:
        """Ids of all jobs that wait or run in Redis."""
        ids = await self._queue.running()
        async with translated():
            ids += [member.decode() for member in await self._redis.zrange(f"{self._prefix}later", 0, -1)]
            for model in await self._queue.models():
                # A tenant that is paused has jobs, but no place among those that are served.
                for field in await self._redis.hkeys(f"{self._prefix}order:{model}"):
                    if field.startswith(b"q:"):
                        ids += await self._ready(model, field[2:].decode())
        return ids

    async def _ready(self, model: str, tenant: str) -> list[str]:
        ids: list[str] = []
        for lane in Lane:
            key = f"{self._prefix}ready:{model}:{tenant}:{lane[0]}"
            ids += [member.decode() for member in await self._redis.zrange(key, 0, -1)]
        return ids


def _missing(row: Job, held: tuple[JobState, int] | None) -> bool:
    """Redis does not have this generation of the job. An earlier one that still runs ends first."""
    return held is None or (held[0] in TERMINAL and held[1] < row.generation)
