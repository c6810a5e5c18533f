"""How much of a model is served: for promises of when a job starts, and whether one can. A reading serves two seconds
of requests.
"""

import asyncio
import math
import time

from inferq import errors
from inferq.config import Settings
from inferq.scheduling.placement import NOTHING
from queues import controls
from queues.presence import Learnt, ReplicaInfo, circuit_of, loaded_as
from queues.queue import NOBODY, Capacity, JobQueue

FRESH = 2.0


class Capacities:
    def __init__(self, queue: JobQueue, settings: Settings):
        self._queue = queue
        self._models = settings.served
        self._read_at = -math.inf
        self._replicas: list[ReplicaInfo] = []
        self._learnt: dict[str, Learnt] = {}
        self._drained = NOTHING
        self._resting: dict[str, float] = {}
        self._reading: asyncio.Task[None] | None = None

    async def of(self, model: str) -> Capacity:
        """Who serves a model now, or will after a load whose length is known. Never raises."""
        await self._refresh()
        there = [replica for replica in self._replicas if replica.model == model and not replica.draining]
        mine = self._serving(model)
        ready = sum(replica.state == "ready" for replica in mine)
        if ready:
            return Capacity(ready, 0.0)
        if there and not mine:
            return NOBODY
        settings, learnt = self._models.get(model), self._learnt.get(model)
        if not settings or not learnt or learnt.source != loaded_as(settings) or not learnt.load_seconds:
            return NOBODY
        starting = [time.time() - replica.since for replica in mine if replica.state == "starting"]
        return Capacity(settings.replicas, max(learnt.load_seconds - max(starting, default=0.0), 1.0))

    async def rests(self, model: str) -> float | None:
        """For how many seconds more no replica of the model takes a job, since its engines keep failing; None where
        one does, or nobody serves it. Never raises. While calls come often, none waits for a reading.
        """
        if self._age >= FRESH:
            reading = self._begin()
            if self._age >= 2 * FRESH:
                await asyncio.shield(reading)
        return self._resting.get(model)

    def _serving(self, model: str) -> list[ReplicaInfo]:
        """Those that have not been told to take nothing."""
        return [
            replica
            for replica in self._replicas
            if replica.model == model
            and not replica.draining
            and not self._drained.has(replica.name, replica.node)
        ]

    async def _refresh(self) -> None:
        """One reading at a time; who comes meanwhile shares it."""
        if self._age >= FRESH:
            await asyncio.shield(self._begin())

    @property
    def _age(self) -> float:
        return time.monotonic() - self._read_at

    def _begin(self) -> asyncio.Task[None]:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(self._forget)
        return self._reading

    def _forget(self, _: object) -> None:
        self._reading = None

    async def _read(self) -> None:
        try:
            self._replicas = await self._queue.replicas()
            self._learnt = await self._queue.learnt(self._models)
            self._drained = await controls.drained(self._queue.redis, self._queue.prefix)
        except errors.Unavailable:
            self._replicas, self._learnt, self._drained = [], {}, NOTHING
        circuits = {model: circuit_of(self._serving(model)) for model in {r.model for r in self._replicas}}
        self._resting = {model: left for model, (circuit, left) in circuits.items() if circuit == "open"}
        self._read_at = time.monotonic()
