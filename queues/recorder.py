"""The recorder: finished jobs go from Redis to SQL, the events and the stream's offset in one transaction.

Only then may Redis forget: the stream is trimmed and the job gets its time to live after the commit, never before.
"""

import logging
from typing import Any

import redis.exceptions

from inferq import failpoints
from inferq.config import Settings
from inferq.job import Job, JobState
from queues import records, stream_id
from queues.connection import Client, translated
from queues.scripts import Scripts
from storage.ledger import Ledger, Recorded

log = logging.getLogger(__name__)

STREAM = "finish"
BATCH = 500
BYTES = 2**25
"""Bodies and results in one batch; a larger job is one by itself."""
GATHER = 0.1
"""Seconds between two reads, so that a busy system commits in batches."""
ANSWERED_TTL = 60
"""Seconds for which an answered interactive job can be read again."""


class Recorder:
    def __init__(self, redis: Client, ledger: Ledger, settings: Settings):
        self._redis = redis
        self._ledger = ledger
        self._prefix = settings.queue.prefix
        self._key = f"{settings.queue.prefix}{STREAM}"
        self._scripts = Scripts(redis, settings.queue)
        self._kept_ttl = int(settings.storage.result_ttl)
        self._offset: str | None = None

    async def align(self) -> None:
        """Redis may have lost its memory: an offset beyond the stream's newest id would hide what comes."""
        async with translated():
            try:
                info: Any = await self._redis.xinfo_stream(self._key)
            except redis.exceptions.ResponseError:
                return
        offset = await self._ledger.offset(STREAM)
        if stream_id.order(info["last-generated-id"].decode()) < stream_id.order(offset):
            log.warning("the finish stream starts again; its recorded offset %s is reset", offset)
            await self._ledger.reset_offset(STREAM, "0-0")
            self._offset = None

    async def run_once(self, *, block_ms: int = 1000) -> int:
        """Record one batch; the number of events recorded."""
        if self._offset is None:
            self._offset = await self._ledger.offset(STREAM)
        old = self._offset
        entries = await self._behind(old) or await self._ahead(old, block_ms)
        if not entries:
            return 0
        entries = await self._fitting(entries)
        events = [{name.decode(): value for name, value in fields.items()} for _, fields in entries]
        new = max(old, entries[-1][0].decode(), key=stream_id.order)
        jobs = await self._jobs(events)
        recorded = [_recorded(job) for job in jobs]
        failpoints.reach("recorder.read")
        if not await self._ledger.record(recorded, stream=STREAM, old=old, new=new):
            # Another recorder was here; what it committed is where to go on.
            self._offset = None
            return 0
        failpoints.reach("recorder.committed")
        self._offset = new
        await self._settle([entry_id for entry_id, _ in entries], jobs)
        return len(events)

    async def _behind(self, offset: str) -> Any:
        """What the stream still holds up to the offset; mostly nothing.

        A recorder died between its commit and the trimming. Or Redis failed over while the old server was still read:
        these came into the stream of the new one meanwhile, and nobody has recorded them.
        """
        async with translated():
            return await self._redis.xrange(self._key, max=offset, count=BATCH)

    async def _ahead(self, offset: str, block_ms: int) -> Any:
        async with translated():
            found: Any = await self._redis.xread({self._key: offset}, count=BATCH, block=block_ms)
        return found[0][1] if found else []

    async def _fitting(self, entries: list[Any]) -> list[Any]:
        """As many of them, from the first on, as are held at a time: the jobs' bodies and results are BYTES at most."""
        async with translated():
            pipe = self._redis.pipeline(transaction=False)
            for _, fields in entries:
                for field in ("body", "result"):
                    pipe.hstrlen(f"{self._prefix}job:{fields[b'id'].decode()}", field)
            sizes = await pipe.execute()
        total = 0
        for count, (body, result) in enumerate(zip(*[iter(sizes)] * 2, strict=True)):
            total += body + result
            if count and total > BYTES:
                return entries[:count]
        return entries

    async def _jobs(self, events: list[dict[str, bytes]]) -> list[Job]:
        """The jobs of these events; one that was requeued meanwhile counts with its newest standing only if ended."""
        async with translated():
            pipe = self._redis.pipeline(transaction=False)
            for event in events:
                pipe.hgetall(f"{self._prefix}job:{event['id'].decode()}")
            found = await pipe.execute()
        jobs = []
        for event, record in zip(events, found, strict=True):
            if b"state" not in record:
                continue
            job = records.job_of(
                event["id"].decode(), {name.decode(): value for name, value in record.items()}
            )
            if job.terminal and job.generation == int(event["gen"]):
                jobs.append(job)
        return jobs

    async def _settle(self, entry_ids: list[bytes], jobs: list[Job]) -> None:
        """Let Redis forget these. Only what was read leaves the stream: this may be another server than the one that
        was read, with older ends that are still to come.
        """
        args: list[Any] = []
        for job in jobs:
            args += [job.id, job.generation, self._kept_ttl if job.spec.kept else ANSWERED_TTL]
        async with translated():
            await self._scripts("settle", len(entry_ids), *entry_ids, *args)


def _recorded(job: Job) -> Recorded:
    """SQL keeps bodies of jobs that somebody may run again, and results of jobs that somebody may fetch later."""
    kept = job.spec.kept
    return Recorded(job, keeps_body=kept or job.state is JobState.FAILED, keeps_result=kept)
