"""`JobQueue`: what a gateway does with the ready sets: put jobs in, look, cancel. Taking them out is `attempts`."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from inferq import errors
from inferq.config import Settings
from inferq.fallback import Reroute
from inferq.job import Failure, Job, JobSpec, JobState
from inferq.lanes import Lane
from queues import records
from queues.batches import batches
from queues.bounds import NO_RATES, Bounds, Rates
from queues.connection import Client, translated
from queues.presence import Learnt, NodeInfo, Presence, ReplicaInfo
from queues.scripts import Scripts
from queues.tenancy import Tenancy
from storage.keys import KeyStore

log = logging.getLogger(__name__)

EVENTS_EVERY = 0.1
"""Seconds between two looks at a job's events. A blocking read would hold a connection per follower."""
RESERVATION = 30.0
"""Seconds that a place is kept between the bound check and the commit of a durable job."""


class Capacity(NamedTuple):
    """Who serves a model: so many replicas, the first of them in `delay` seconds."""

    replicas: int
    delay: float


NOBODY = Capacity(0, 0.0)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a job stands: `position` counts from 1, None where nobody asked; `ahead` is device seconds of work before
    it, `eta` the seconds until it is expected to start, None while nobody serves its model, or nobody may: it is
    paused, or its tenant runs all it may.
    """

    position: int | None
    ahead: float
    eta: float | None = None
    bell_wanted: bool = False
    rates: Rates = NO_RATES


class JobQueue:
    """The ready sets of all models. Every method raises QueueUnavailable when Redis is away. `keys` tell of tenants."""

    def __init__(self, redis: Client, settings: Settings, keys: KeyStore | None = None):
        self.redis = redis
        self.prefix = settings.queue.prefix
        self.scripts = Scripts(redis, settings.queue)
        self._tenancy = Tenancy(keys)
        self._bounds = Bounds(settings, self._tenancy)
        self._chains = {name for name, model in settings.served.items() if model.fallback}
        self._presence = Presence(redis, settings.queue.prefix)

    async def ping(self) -> None:
        async with translated():
            await self.redis.ping()

    async def now(self) -> float:
        """The clock of Redis."""
        async with translated():
            seconds, micros = await self.redis.time()
        return float(seconds + micros / 1e6)

    async def refuse_full(self, model: str, tenant: str, lane: Lane) -> None:
        """Raises QueueFull when a job of one byte could not be accepted now. Keeps no place."""
        await self._tenancy.look()
        async with translated():
            status, ahead = await self.scripts(
                "full", model, tenant, lane.value, *self._bounds.of_queue(tenant, lane)
            )
        self._bounds.refuse(model, tenant, lane, status.decode(), float(ahead), [])

    async def room(self, model: str, tenant: str, lane: Lane) -> int:
        """How many more jobs of the tenant the model's queue lets in now. Keeps no place."""
        await self._tenancy.look()
        async with translated():
            found = await self.scripts(
                "room", model, tenant, lane.value, *self._bounds.of_queue(tenant, lane)
            )
        return int(found)

    async def reserve(self, spec: JobSpec) -> Rates:
        """Keep a place for a durable job for 30 s. Raises QueueFull, RateLimited, BudgetSpent."""
        await self._tenancy.look()
        async with translated():
            status, ahead, told = await self.scripts(
                "reserve",
                *(spec.id, spec.model, spec.tenant, spec.lane.value, len(spec.body), RESERVATION),
                *self._bounds.of_job(spec),
            )
        self._refuse(spec, status, ahead, told)
        return self._bounds.rates(spec.tenant, told)

    async def release(self, spec: JobSpec) -> None:
        """Give a reserved place back of which nothing comes."""
        async with translated():
            place = f"{spec.id} {spec.lane.value} {len(spec.body)} {spec.tenant}"
            await self.redis.zrem(f"{self.prefix}held:{spec.model}", place)

    async def charge(self, specs: Sequence[JobSpec]) -> None:
        """Take scheduled jobs of one tenant, asked for together, out of its rates as one request. Keeps no place.

        Raises RateLimited, BudgetSpent.
        """
        first = specs[0]
        async with translated():
            status, ahead, told = await self.scripts(
                "reserve",
                *(first.id, first.model, first.tenant, first.lane.value, 0, 0),
                *self._bounds.of_scheduled(specs),
            )
        self._refuse(first, status, ahead, told)

    async def owe(self, spec: JobSpec) -> None:
        """Take the tokens of a job whose size was not known when it was accepted out of its tenant's rates. They may
        leave a debt, for which later requests wait.
        """
        requests, tokens, needed = self._bounds.of_job(spec)[5:8]
        async with translated():
            await self.scripts("owe", spec.tenant, requests, tokens, needed)

    async def accept(
        self,
        spec: JobSpec,
        mode: str,
        *,
        generation: int = 0,
        weight: float = 0.0,
        reply_to: str | None = None,
        capacity: Capacity | None = None,
        instead_of: str | None = None,
    ) -> Standing | None:
        """Make a job queued: `direct` checks the bounds, `reserved` has a place, `restore` was accepted before.

        `weight` is the tenant's share; 0 is that of its key, and without one leaves what is known. Without a `capacity`
        nobody is told where the job stands: that costs something. `instead_of` is the model that was asked for, where
        the job is for another one of its chain. Returns None when Redis already holds the job, or a cancel came first.
        Raises QueueFull, RateLimited, BudgetSpent, and InvalidRequest when a number of it is not finite.
        """
        await self._tenancy.look()
        async with translated():
            answer = await self.scripts(
                "accept", *self._asked(spec, mode, generation, weight, reply_to, capacity, instead_of)
            )
        return self._standing(spec, answer)

    async def restore(
        self,
        jobs: Sequence[Job],
        capacities: Mapping[str, Capacity] | None = None,
        *,
        mode: str = "restore",
        read_at: float | None = None,
    ) -> list[Standing | None]:
        """`accept` jobs that were accepted before, many in one round trip; a standing for each, or None.

        `capacities` by model, `mode` as for `accept`. With `read_at`, when their rows were read by the clock of Redis
        (`now`), they are left out once that is 30 s ago. A job that cannot be queued is logged and keeps no other out.
        """
        await self._tenancy.look()
        standings: list[Standing | None] = []
        for batch in batches(jobs, lambda job: len(job.spec.body)):
            standings += await self._restore(batch, capacities or {}, mode, read_at)
        return standings

    async def _restore(
        self, jobs: Sequence[Job], capacities: Mapping[str, Capacity], mode: str, read_at: float | None
    ) -> list[Standing | None]:
        async with translated():
            pipe = self.redis.pipeline(transaction=False)
            for job in jobs:
                capacity = capacities.get(job.spec.model)
                asked = self._asked(job.spec, mode, job.generation, 0.0, None, capacity, read_at=read_at)
                await self.scripts("accept", *asked, client=pipe)
            answers = await pipe.execute()
        standings: list[Standing | None] = []
        for job, answer in zip(jobs, answers, strict=True):
            try:
                standings.append(self._standing(job.spec, answer))
            except errors.InvalidRequest as error:
                log.warning("job %s cannot be queued: %s", job.id, error.message)
                standings.append(None)
        return standings

    def _asked(
        self,
        spec: JobSpec,
        mode: str,
        generation: int,
        weight: float,
        reply_to: str | None,
        capacity: Capacity | None,
        instead_of: str | None = None,
        read_at: float | None = None,
    ) -> list[Any]:
        """The arguments of `accept.lua`."""
        share = weight or self._tenancy.weight(spec.tenant)
        # A new job's deadline is that many seconds away: which clock this host has makes no difference.
        since = 0.0 if mode == "restore" else time.time()
        return [
            *(secrets.token_hex(8), mode, share, spec.id, spec.model, spec.tenant, spec.lane.value),
            *(repr(spec.units), len(spec.body), generation),
            "" if spec.expires_at is None else repr(spec.expires_at - since),
            *(capacity or ("", 0)),
            *(self._bounds.of_job(spec) if mode == "direct" else ()),
            *(("" if read_at is None else repr(read_at),) if mode == "restore" else ()),
            *records.fields_of(spec, reply_to),
            *(("asked", instead_of) if instead_of else ()),
            *(("chain", "1") if (instead_of or spec.model) in self._chains else ()),
        ]

    def _standing(self, spec: JobSpec, answer: list[Any]) -> Standing | None:
        """What `accept.lua` answered; the errors are those of `accept`."""
        status, position, ahead, bell, eta, told = answer
        if status in (b"exists", b"tomb", b"old"):
            return None
        if status == b"number":
            raise errors.InvalidRequest(f"Job {spec.id} is of {spec.units} units of work; that is no size.")
        self._refuse(spec, status, ahead, told)
        rates = self._bounds.rates(spec.tenant, told)
        place = None if position < 0 else position + 1
        return Standing(place, float(ahead), float(eta) if eta else None, bool(bell), rates)

    def _refuse(self, spec: JobSpec, status: bytes, ahead: bytes, told: list[bytes]) -> None:
        self._bounds.refuse(spec.model, spec.tenant, spec.lane, status.decode(), float(ahead), told)

    async def cancel(self, job_id: str, failure: Failure, *, generation: int = 0) -> str:
        """The state the job was in; `unknown` when it is not here.

        Where this generation is not here yet, a tombstone is left that a later accept of it or of an older one
        respects. `stale` means that a newer generation of the job is here and nothing was done.
        """
        async with translated():
            state = await self.scripts(
                "cancel", job_id, generation, failure.code, failure.message, failure.status
            )
        return str(state.decode())

    async def reorder(self, job_id: str, lane: Lane, *, generation: int = 0) -> str:
        """Give a job another lane; the state it is in. `unknown` or `stale`: nothing was done."""
        async with translated():
            state = await self.scripts("reorder", job_id, generation, lane.value)
        return str(state.decode())

    async def put_aside(self, limit: int) -> list[Job]:
        """Jobs that failed and may be given to another model, those that wait longest first."""
        async with translated():
            ids = await self.redis.zrange(f"{self.prefix}reroute", 0, limit - 1)
        found = {job_id: await self.get(job_id.decode()) for job_id in ids}
        gone = [job_id for job_id, job in found.items() if job is None]
        if gone:
            async with translated():
                await self.redis.zrem(f"{self.prefix}reroute", *gone)
        return [job for job in found.values() if job is not None]

    async def reroute(self, job: Job, other: Reroute | None) -> tuple[str, bool]:
        """Give a job that was put aside to another model, or let it fail: its state (`stale`: nothing was done), and
        whether the other model is to be rung for.
        """
        await self._tenancy.look()
        asked = (other.model, other.body, repr(other.units)) if other else ("", b"", "0")
        share = self._tenancy.weight(job.spec.tenant)
        async with translated():
            state, bell = await self.scripts("reroute", job.id, job.generation, *asked, share)
        return state.decode(), bool(bell)

    async def get(self, job_id: str) -> Job | None:
        """The job as Redis knows it, without its place."""
        async with translated():
            record = await self.redis.hgetall(f"{self.prefix}job:{job_id}")
        if b"state" not in record:
            return None
        return records.job_of(job_id, {name.decode(): value for name, value in record.items()})

    async def states(self, job_ids: list[str]) -> list[str | None]:
        """State of each job, None where Redis knows nothing; one round trip."""
        async with translated():
            pipe = self.redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hget(f"{self.prefix}job:{job_id}", "state")
            return [state.decode() if state else None for state in await pipe.execute()]

    async def with_runs(self, jobs: list[Job]) -> list[Job]:
        """The same jobs; those that run tell so, since when, where and how far; one round trip."""
        async with translated():
            pipe = self.redis.pipeline(transaction=False)
            for job in jobs:
                pipe.hmget(f"{self.prefix}job:{job.id}", *records.RUN)
            found = await pipe.execute()
        return [records.running(job, values) for job, values in zip(jobs, found, strict=True)]

    async def generations(self, job_ids: list[str]) -> list[tuple[JobState, int] | None]:
        """State and generation of each job, None where Redis knows nothing; one round trip."""
        async with translated():
            pipe = self.redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hmget(f"{self.prefix}job:{job_id}", "state", "gen")
            found = await pipe.execute()
        return [(JobState(state.decode()), int(gen or 0)) if state else None for state, gen in found]

    async def forget(self, job_ids: list[str]) -> None:
        """Drop the records of jobs that have ended and that nobody can queue again."""
        async with translated():
            await self.redis.delete(
                *(f"{self.prefix}{kind}:{each}" for each in job_ids for kind in ("job", "events"))
            )

    async def running(self) -> list[str]:
        """Ids of the jobs that replicas hold."""
        async with translated():
            return [member.decode() for member in await self.redis.zrange(f"{self.prefix}leases", 0, -1)]

    async def standing(self, job_id: str, capacity: Capacity = NOBODY) -> Standing | None:
        """Where a waiting job stands; None when it does not wait."""
        async with translated():
            position, ahead, eta = await self.scripts("standing", job_id, *capacity)
        return None if position < 0 else Standing(position + 1, float(ahead), float(eta) if eta else None)

    async def models(self) -> list[str]:
        """Models that have had a job."""
        async with translated():
            return sorted(name.decode() for name in await self.redis.smembers(f"{self.prefix}models"))

    async def depths(self) -> dict[str, dict[str, int]]:
        """Waiting jobs per model and lane, and their bytes."""
        names = await self.models()
        fields = ["n:high", "n:medium", "n:low", "bytes"]
        async with translated():
            pipe = self.redis.pipeline(transaction=False)
            for name in names:
                pipe.hmget(f"{self.prefix}order:{name}", fields)
            rows = await pipe.execute()
        return {
            name: {
                field.removeprefix("n:"): int(value or 0) for field, value in zip(fields, row, strict=True)
            }
            for name, row in zip(names, rows, strict=True)
        }

    async def rates(self, names: list[str]) -> dict[str, float]:
        """Device seconds that a unit of work has taken, as learnt, of those of the models that have run a job."""
        async with translated():
            pipe = self.redis.pipeline(transaction=False)
            for name in names:
                pipe.hget(f"{self.prefix}order:{name}", "rate")
            found = await pipe.execute()
        return {name: float(rate) for name, rate in zip(names, found, strict=True) if rate}

    async def replicas(self) -> list[ReplicaInfo]:
        async with translated():
            return await self._presence.replicas()

    async def learnt(self, models: Iterable[str]) -> dict[str, Learnt]:
        """What the last load of each model showed."""
        async with translated():
            return await self._presence.learnt(models)

    async def nodes(self) -> list[NodeInfo]:
        async with translated():
            return await self._presence.nodes()

    async def events(self, job_id: str, after: str = "0-0") -> AsyncIterator[tuple[str, str, bytes]]:
        """(id, name, data) of a kept job's events; ends after `done`, or when Redis no longer has the job."""
        key = f"{self.prefix}events:{job_id}"
        while True:
            # The state before the events: a job that has ended has written its last one.
            live = (await self.states([job_id]))[0] in ("queued", "running", "scheduled")
            async with translated():
                found: Any = await self.redis.xread({key: after}, count=100)
            for event_id, event in found[0][1] if found else []:
                after = event_id.decode()
                name = event[b"name"].decode()
                yield after, name, event[b"data"]
                if name == "done":
                    return
            if not found:
                if not live:
                    return
                await asyncio.sleep(EVENTS_EVERY)
