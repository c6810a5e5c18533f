"""The reconciler: SQL and Redis agree again, whatever was lost between them. Both ways.

1. Unfinished in SQL, unknown to Redis or known there only as an earlier generation that has ended: queued again from
   the row as it is now.
2. Ended in SQL, still live in Redis (a cancel that Redis did not hear of): leaves Redis.
"""

import logging
from collections.abc import AsyncIterator, Sequence

from inferq import failpoints
from inferq.config import Settings
from inferq.job import TERMINAL, JobState
from inferq.lanes import Lane
from queues.batches import batches
from queues.connection import Client, translated
from queues.intake import CANCELLED
from queues.queue import JobQueue
from queues.signals import Signals
from storage.ledger import Ledger, Unfinished

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
            missing = [row for row, there in zip(rows, held, strict=True) if _missing(row, there)]
            back = await self._put_back(missing)
            away = {row.id for row in missing}.difference(back)
            await self._ledger.mark_queued(row.id for row in rows if not row.in_queue and row.id not in away)
            restored += len(back)
        if restored:
            log.warning("%d jobs that Redis did not know were queued again", restored)
        return restored

    async def _put_back(self, rows: Sequence[Unfinished]) -> list[str]:
        """Queue jobs from their rows as they are now, and say which. Refused where Redis has one after all."""
        back: list[str] = []
        for batch in batches(rows, lambda row: row.size):
            read_at = await self._queue.now()
            jobs = await self._ledger.unfinished_among([row.id for row in batch])
            for job, standing in zip(jobs, await self._queue.restore(jobs, read_at=read_at), strict=True):
                if standing is None:
                    continue
                failpoints.reach("reconciler.restored")
                back.append(job.id)
                if standing.bell_wanted:
                    self._signals.ring(job.spec.model)
        return back

    async def _remove(self) -> int:
        removed = 0
        async for ids in self._live():
            ended = await self._ledger.ended_among(ids)
            held = await self._queue.generations([row.id for row in ended])
            for row, there in zip(ended, held, strict=True):
                if there and there[0] not in TERMINAL and there[1] <= row.generation:
                    failpoints.reach("reconciler.removing")
                    await self._queue.cancel(row.id, CANCELLED, generation=row.generation)
                    removed += 1
        if removed:
            log.warning("%d jobs that had ended were taken out of Redis", removed)
        return removed

    async def _live(self) -> AsyncIterator[list[str]]:
        """Ids of all jobs that wait or run in Redis, page by page. In the order in which jobs go from one set to the
        next, so that one which moves on meanwhile is found all the same.
        """
        page: list[str] = []
        async for key in self._keys():
            cursor: int | None = None
            while cursor != 0:
                async with translated():
                    cursor, found = await self._redis.zscan(key, cursor or 0, count=PAGE)
                page += [member.decode() for member, _ in found]
                if len(page) >= PAGE:
                    yield page
                    page = []
        if page:
            yield page

    async def _keys(self) -> AsyncIterator[str]:
        """Of all sets in which such jobs are."""
        yield f"{self._prefix}later"
        yield f"{self._prefix}reroute"
        for model in await self._queue.models():
            async with translated():
                # A tenant that is paused has jobs, but no place among those that are served.
                fields = await self._redis.hkeys(f"{self._prefix}order:{model}")
            for field in fields:
                if field.startswith(b"q:"):
                    for lane in Lane:
                        yield f"{self._prefix}ready:{model}:{field[2:].decode()}:{lane[0]}"
        yield f"{self._prefix}leases"


def _missing(row: Unfinished, held: tuple[JobState, int] | None) -> bool:
    """Redis does not have this generation of the job. An earlier one that still runs ends first."""
    return held is None or (held[0] in TERMINAL and held[1] < row.generation)
