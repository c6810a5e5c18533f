"""The result cache: answers of pure requests, in this process and in Redis, both bounded in bytes.

A key is a digest of the model's version and the request, so an answer is found again by whoever asks the same. Losing
it costs time only: with Redis away or full there is simply nothing in it.
"""

import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import orjson

from inferq import errors
from inferq.config import ModelSettings, Settings
from inferq.endpoints import Answer
from inferq.request import Request
from queues.connection import Client, translated
from queues.scripts import Scripts

log = logging.getLogger(__name__)

VERSION_EVERY = 10.0
"""Seconds for which the files of a model are taken to be the same."""
_UNIMPORTANT = frozenset({"user", "safety_identifier", "prompt_cache_key"})
"""Fields that change nothing about an answer."""


@dataclass(frozen=True, slots=True)
class Cached:
    """An answer as the engine made it."""

    data: bytes
    media_type: str


class ResultCache:
    """`find` and `keep` never raise: a cache that is away is an empty one."""

    def __init__(self, redis: Client, settings: Settings):
        self._settings = settings
        self._bounds = settings.cache
        self._scripts = Scripts(redis, settings.queue)
        self._near: OrderedDict[str, Cached] = OrderedDict()
        self._near_bytes = 0
        self._versions: dict[str, tuple[float, str]] = {}

    def key(self, request: Request) -> str | None:
        """The key of a request; None for one that must not be cached."""
        if not self._bounds.enabled or not request.endpoint.cached(request.body):
            return None
        left_out = _UNIMPORTANT
        if request.endpoint.answer is Answer.PICTURES:
            left_out |= {"response_format"}  # the gateway's business; the engine's answer is the same
        body = {name: value for name, value in request.body.items() if name not in left_out}
        text = orjson.dumps(
            [request.endpoint.path, self._version(request.model, request.settings), body],
            option=orjson.OPT_SORT_KEYS,
        )
        return hashlib.sha256(text).hexdigest()

    async def find(self, key: str) -> Cached | None:
        """What was answered before, if it is still here."""
        near = self._near.get(key)
        if near is not None:
            self._near.move_to_end(key)
            return near
        try:
            async with translated():
                found = await self._scripts("cache_get", key)
        except errors.QueueUnavailable:
            return None
        if not found:
            return None
        media_type, _, data = found.partition(b"\n")
        cached = Cached(data, media_type.decode())
        self._keep_near(key, cached)
        return cached

    async def keep(self, key: str, data: bytes, media_type: str) -> None:
        """Note an answer, unless it is too big."""
        if len(data) > self._bounds.max_entry:
            return
        self._keep_near(key, Cached(data, media_type))
        try:
            async with translated():
                await self._scripts(
                    "cache_put",
                    key,
                    data,
                    media_type,
                    max(1, round(self._bounds.ttl)),
                    self._bounds.max_bytes,
                )
        except errors.QueueUnavailable as error:
            log.debug("an answer was not cached: %s", error.message)

    def _keep_near(self, key: str, cached: Cached) -> None:
        before = self._near.pop(key, None)
        self._near_bytes += len(cached.data) - (len(before.data) if before else 0)
        self._near[key] = cached
        while self._near_bytes > self._bounds.max_process_bytes:
            _, gone = self._near.popitem(last=False)
            self._near_bytes -= len(gone.data)

    def _version(self, name: str, model: ModelSettings) -> str:
        """A digest of what makes this model's answers: its settings, and the files of its source as they are here."""
        known = self._versions.get(name)
        now = time.monotonic()
        if known and known[0] > now:
            return known[1]
        settings = model.model_dump(mode="json", include={"engine", "source", "options", "limits", "context"})
        text = orjson.dumps([name, settings, _files(self._settings.under_home(model.source))])
        version = hashlib.sha256(text).hexdigest()
        self._versions[name] = (now + VERSION_EVERY, version)
        return version


def _files(source: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the files at a source; nothing for one that lies elsewhere."""
    try:
        paths = sorted(source.iterdir()) if source.is_dir() else [source]
        return [(path.name, stat.st_size, stat.st_mtime_ns) for path in paths if (stat := path.stat())]
    except OSError:
        return []
