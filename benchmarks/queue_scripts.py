"""Bars of the ready sets alone: the product's own Lua on an embedded Redis, called as replicas and gateways call it.

Claims are measured in Redis' own time, where growth is not hidden behind a round trip. Servers with few
and with many waiting jobs run side by side and are asked in turn, so the machine's mood is the same for all.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import Result
from benchmarks.load import percentiles
from benchmarks.own_redis import FROM_MEMORY, own_redis
from benchmarks.plan import Scale
from benchmarks.stack import Broken, say
from inferq.config import Settings
from inferq.job import Job, JobSpec, JobState, new_job_id
from queues.attempts import Attempts, Finish, Outcome
from queues.connection import connect
from queues.queue import JobQueue
from queues.scripts import complete

BARS = ("queue_claim_growth", "queue_memory_per_job", "queue_enqueue_rate")
MODEL = "bench"
BODY = b"x" * 1024
PATTERN = "pattern"
FEW = 1000
TENANTS = 1000
FILLED_AT_ONCE = 500
CLAIMS = 200
BATCH = 100
DONE = Finish(outcome=Outcome.SUCCEEDED, seconds=0.001, result=b"{}")


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    if wanted & {"queue_claim_growth", "queue_memory_per_job"}:
        found = {str(tenants): asyncio.run(_growth(tenants, scale)) for tenants in (1, TENANTS)}
        if "queue_claim_growth" in wanted:
            yield Result("queue_claim_growth", max(each["growth"] for each in found.values()), found)
        if "queue_memory_per_job" in wanted:
            bytes_each = {tenants: each["bytes_per_job"] for tenants, each in found.items()}
            yield Result("queue_memory_per_job", max(bytes_each.values()) / 1024, {"bytes": bytes_each})
    if "queue_enqueue_rate" in wanted:
        yield asyncio.run(_enqueue_rate(scale))


def new_job(tenant: str = "t0", **changes: Any) -> Job:
    """A waiting durable job of ten units with a body of 1 KB."""
    values = {"model": MODEL, "endpoint": "chat/completions", "body": BODY, "durable": True, "units": 10.0}
    spec = JobSpec(id=new_job_id(), tenant=tenant, created_at=time.time(), **{**values, **changes})
    return Job(spec=spec, state=JobState.QUEUED)


class Shelf:
    """One server, and how it is filled and emptied."""

    def __init__(self, settings: Settings, tenants: int) -> None:
        self._tenants = tenants
        self.redis = connect(settings, connections=4)
        self._queue = JobQueue(self.redis, settings)
        self._attempts = Attempts(self.redis, settings, MODEL, "bench@cpu:0.here")
        filling = Path(__file__).with_name("queue_filling.lua").read_text()
        self._fill = self.redis.register_script(complete(filling, settings.queue))
        self._prefix = settings.queue.prefix
        self._next = 0

    async def prepare(self) -> None:
        """Put aside what a job looks like that was really accepted."""
        job = new_job()
        await self._queue.accept(job.spec, "direct")
        await self.redis.copy(f"{self._prefix}job:{job.id}", f"{self._prefix}job:{PATTERN}")

    async def fill(self, count: int) -> None:
        for start in range(0, count, FILLED_AT_ONCE):
            some = min(FILLED_AT_ONCE, count - start)
            await self._fill(args=[PATTERN, self._next, some, self._tenants])
            self._next += some

    async def memory(self) -> int:
        return int((await self.redis.info("memory"))["used_memory"])

    async def claims(self) -> list[int]:
        """Microseconds that Redis spent on each of some claims; their jobs end, and others take their places."""
        attempts, found = [], []
        spent = await self._spent()
        for _ in range(CLAIMS):
            attempt = await self._attempts.claim()
            if attempt is None:
                raise Broken("no job was there to be claimed")
            attempts.append(attempt)
            before, spent = spent, await self._spent()
            found.append(spent - before)
        for attempt in attempts:
            await self._attempts.finish(attempt, DONE, claim_next=False)
        await self.fill(CLAIMS)
        return found

    async def _spent(self) -> int:
        stats = await self.redis.info("commandstats")
        return int(stats["cmdstat_evalsha"]["usec"])


async def _growth(tenants: int, scale: Scale) -> dict[str, Any]:
    levels = (FEW, scale.most_waiting // 10, scale.most_waiting)
    with contextlib.ExitStack() as held:
        shelves = [Shelf(held.enter_context(own_redis(*FROM_MEMORY)), tenants) for _ in levels]
        bytes_each = 0.0
        for shelf, level in zip(shelves, levels, strict=True):
            await shelf.prepare()
            before, began = await shelf.memory(), time.monotonic()
            await shelf.fill(level)
            bytes_each = (await shelf.memory() - before) / level - len(BODY)
            seconds = time.monotonic() - began
            say(f"  {tenants} tenants, {level} jobs wait after {seconds:.0f} s: {bytes_each:.0f} bytes each")
        rounds = [
            {n: await s.claims() for n, s in zip(levels, shelves, strict=True)}
            for _ in range(scale.rounds + 1)
        ]
        for shelf in shelves:
            await shelf.redis.aclose()
    middles = [{n: statistics.median(found) for n, found in each.items()} for each in rounds[1:]]
    growth = statistics.median(each[levels[-1]] / each[levels[0]] for each in middles)
    claims = {str(n): percentiles([float(us) for each in rounds[1:] for us in each[n]]) for n in levels}
    say(f"  {tenants} tenants: x{growth:.2f}; microseconds of a claim {claims}")
    return {"growth": growth, "bytes_per_job": bytes_each, "claim_us": claims, "rounds_p50_us": middles}


async def _enqueue_rate(scale: Scale) -> Result:
    """Jobs per second, in batches of 100 on one connection, as the releaser and a requeue of dead letters do it."""
    rounds, beside = [], {}
    with own_redis() as settings:
        redis = connect(settings, connections=32)
        queue = JobQueue(redis, settings)
        await queue.restore([new_job() for _ in range(BATCH)])
        for number in range(scale.rounds):
            rate = await _restored(queue, [new_job() for _ in range(scale.enqueued)])
            say(f"  round {number + 1}: {rate:.0f} jobs/s in batches of {BATCH}")
            rounds.append(rate)
        beside["one_by_one_32_in_flight"] = await _accepted(queue, [new_job() for _ in range(scale.enqueued)])
        spread = [new_job(f"t{number % TENANTS}") for number in range(scale.enqueued)]
        beside[f"{TENANTS}_tenants"] = await _restored(queue, spread)
        say(f"  beside: {beside}")
        await redis.aclose()
    return Result("queue_enqueue_rate", statistics.median(rounds), {"rounds": rounds, "beside": beside})


async def _restored(queue: JobQueue, jobs: Sequence[Job]) -> float:
    began = time.perf_counter()
    for start in range(0, len(jobs), BATCH):
        if None in await queue.restore(jobs[start : start + BATCH]):
            raise Broken("a new job was there already")
    return len(jobs) / (time.perf_counter() - began)


async def _accepted(queue: JobQueue, jobs: Sequence[Job]) -> float:
    """Jobs per second with a call of its own for each, 32 under way at once."""
    left = iter(jobs)

    async def caller() -> None:
        for job in left:
            await queue.accept(job.spec, "direct")

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(32)))
    return len(jobs) / (time.perf_counter() - began)
