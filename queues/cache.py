"""The result cache: answers of pure requests, in this process and in Redis, both bounded in bytes.

A key is a digest of the request and of the loads that answer for its model now: the same replicas since the same
moments. So what an engine has in memory decides, wherever its files lie and whatever became of them since, and each
load begins with nothing. Where no load is known nothing is cached. Losing the cache costs time only: with Redis away or
full there is simply nothing in it.
"""

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from inferq import errors
from inferq.config import Settings
from inferq.endpoints import Answer
from inferq.request import Request
from queues.connection import Client, translated
from queues.presence import Presence
from queues.scripts import Scripts

log = logging.getLogger(__name__)

LOADS_EVERY = 2.0
"""Seconds for which a reading of the replicas serves; they report as often."""
ENTRY = 512
"""Bytes that an entry takes beside its answer: measured, 510 in Redis and 350 in a process."""
_UNIMPORTANT = frozenset({"user", "safety_identifier", "prompt_cache_key"})
"""Fields that change nothing about an answer."""

Loads = list[tuple[str, float]]
"""Replicas of one model, and since when each is ready."""


@dataclass(frozen=True, slots=True)
class Cached:
    """An answer as the engine made it."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class _Near:
    """An entry of this process; `until` is by its own clock."""

    cached: Cached
    until: float

    @property
    def size(self) -> int:
        return len(self.cached.data) + ENTRY


class ResultCache:
    """`key`, `find` and `keep` never raise: a cache that is away is an empty one."""

    def __init__(self, redis: Client, settings: Settings, clock: Callable[[], float] = time.monotonic):
        self._bounds = settings.cache
        self._scripts = Scripts(redis, settings.queue)
        self._presence = Presence(redis, settings.queue.prefix)
        self._clock = clock
        self._near: OrderedDict[str, _Near] = OrderedDict()
        self._near_bytes = 0
        self._loads: dict[str, Loads] = {}
        self._loads_until = 0.0

    async def key(self, request: Request, tenant: str) -> str | None:
        """The key of a request; None for one that must not be cached, or whose model nobody has loaded."""
        if not self._bounds.enabled or not request.endpoint.cached(request.body):
            return None
        loads = (await self._current()).get(request.model)
        if not loads:
            return None
        left_out = _UNIMPORTANT
        if request.endpoint.answer is Answer.PICTURES:
            left_out |= {"response_format"}  # the gateway's business; the engine's answer is the same
        body = {name: value for name, value in request.body.items() if name not in left_out}
        whose = "" if self._bounds.shared else tenant
        text = orjson.dumps(
            [request.endpoint.path, request.model, loads, whose, body], option=orjson.OPT_SORT_KEYS
        )
        return hashlib.sha256(text).hexdigest()

    async def find(self, key: str) -> Cached | None:
        """What was answered before, if it is still here."""
        near = self._near.get(key)
        if near is not None and near.until > self._clock():
            self._near.move_to_end(key)
            return near.cached
        try:
            async with translated():
                found = await self._scripts("cache_get", key)
        except errors.QueueUnavailable:
            found = None
        if not found:
            self._forget(key)
            return None
        data, left = found
        media_type, _, data = data.partition(b"\n")
        cached = Cached(data, media_type.decode())
        self._keep_near(key, cached, left / 1000)
        return cached

    async def keep(self, key: str, data: bytes, media_type: str) -> None:
        """Note an answer, unless it is too big."""
        if len(data) > self._bounds.max_entry:
            return
        ttl = max(1, round(self._bounds.ttl))
        self._keep_near(key, Cached(data, media_type), ttl)
        try:
            async with translated():
                await self._scripts("cache_put", key, data, media_type, ttl, self._bounds.max_bytes, ENTRY)
        except errors.QueueUnavailable as error:
            log.debug("an answer was not cached: %s", error.message)

    def _keep_near(self, key: str, cached: Cached, seconds: float) -> None:
        self._forget(key)
        entry = self._near[key] = _Near(cached, self._clock() + seconds)
        self._near_bytes += entry.size
        while self._near_bytes > self._bounds.max_process_bytes:
            self._forget(next(iter(self._near)))

    def _forget(self, key: str) -> None:
        gone = self._near.pop(key, None)
        if gone is not None:
            self._near_bytes -= gone.size

    async def _current(self) -> dict[str, Loads]:
        """The loads by model, as the replicas reported them a moment ago."""
        if self._clock() >= self._loads_until:
            self._loads_until = self._clock() + LOADS_EVERY
            found: dict[str, Loads] = {}
            try:
                async with translated():
                    replicas = await self._presence.replicas()
            except errors.QueueUnavailable:
                replicas = []
            for replica in sorted(replicas, key=lambda each: each.name):
                if replica.state == "ready":
                    found.setdefault(replica.model, []).append((replica.name, replica.since))
            self._loads = found
        return self._loads
