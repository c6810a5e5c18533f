"""Media intake: whatever a caller names as a file becomes an artifact that was looked into, or the request is refused.

The order is receive, look, judge, store: bytes that are refused never become an artifact. What a request brought that
is refused for another reason afterwards stays, as anything does that no job names; only what comes in a form waits for
more than its own judgement (`draft`). It must not know endpoints, nor how a file is fetched or looked into.
"""

import asyncio
import math
import re
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inferq import errors
from inferq.config.sections import Media as MediaSettings
from inferq.endpoints import FileFacts, FilePlace
from inferq.media.facts import PICTURES, Facts
from inferq.media.fetch import Fetcher, failed
from inferq.media.prober import Prober
from inferq.media.reference import Inline, Reference, Remote, Stored, parse, place_of
from inferq.media.turns import Turns
from inferq.request import Request
from storage.artifacts import CHUNK, Artifact, ArtifactStore, Upload
from storage.blobs import OCTETS

Wants = Literal["image", "audio", "video", "any"]
"""What an endpoint can use. A video with sound is audio too: what listens takes the sound out of it."""

REMEMBERED = 1024
"""Artifacts whose facts are kept, so that the same bytes are looked into once."""

SLOW_SECONDS = 300.0
"""How long a file is refused unseen once a look into it took too long. No longer: this machine may have been busy."""

AT_ONCE = 4
"""Files of one request that are taken at a time."""

_CLAIM = re.compile(r"application/[a-z0-9!#$&^_.+-]{1,64}")
_WANTED = {
    "image": f"a picture ({', '.join(PICTURES)})",
    "audio": "a sound",
    "video": "a video",
}


@dataclass(frozen=True, slots=True)
class Media:
    """An artifact that was looked into. `media_type` is what the bytes are, not what their sender said."""

    sha256: str
    media_type: str
    size: int
    facts: Facts


class Drafted:
    """A file that was looked into and is not kept yet."""

    def __init__(self, upload: Upload, facts: Facts, claimed: str | None) -> None:
        self._upload, self._facts, self._claimed = upload, facts, claimed

    @property
    def sha256(self) -> str:
        return self._upload.sha256

    async def commit(self) -> Media:
        """Keep it. Raises StoreUnavailable."""
        artifact = await self._upload.commit(self._facts.media_type or _plain(self._claimed))
        return _media(artifact, self._facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds of one file: pixels of a picture or frame, seconds of a recording, frames of anything."""

    pixels: int
    seconds: float
    frames: int


class MediaStore:
    """Takes files for the API and for watched folders. `close` it; fetcher and prober are made if not given.

    `ours` are the places (`reference.place_of`) whose links to artifacts mean what is here.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        settings: MediaSettings,
        *,
        ours: Collection[str] = (),
        fetcher: Fetcher | None = None,
        prober: Prober | None = None,
    ) -> None:
        self._artifacts = artifacts
        self._settings = settings
        self._ours = frozenset(ours)
        self._fetcher = fetcher or Fetcher(settings)
        self._prober = prober or Prober()
        # A fetch may take long, so nobody holds all places, not even while nobody else wants one.
        self._fetching = Turns(settings.max_fetches, share=math.ceil(settings.max_fetches / 2))
        # By sha256, and until when they hold in the loop's time.
        self._known: OrderedDict[str, tuple[Facts, float]] = OrderedDict()
        self._limits = Limits(
            pixels=settings.max_image_pixels, seconds=settings.max_audio_seconds, frames=settings.max_frames
        )

    async def take(
        self,
        value: Any,
        *,
        param: str,
        tenant: str = "",
        wants: Wants = "any",
        raw_base64: bool = False,
        deadline: float | None = None,
        host: str | None = None,
    ) -> Media:
        """The file that a field refers to: a data: URL, a URL, an artifact's id, or base64 where that is taken.

        `deadline`, in the loop's time, is for what has to be fetched, and includes waiting for a turn. `host`
        is where the caller reached this server, whose links are ours as well. Tenants take turns at what is scarce.
        Raises InvalidRequest naming `param`, StoreUnavailable, and Unavailable when no turn came in time.
        """
        reference = await self._parsed(value, param, raw_base64, host)
        match reference:
            case Stored(sha256):
                return await self._stored(sha256, param, tenant, wants)
            case Inline(data, media_type):
                return await self._received(_pieces(data), media_type, param, tenant, wants)
            case Remote():
                async with (
                    self._turn(tenant, deadline),
                    self._in_time(deadline, param),
                    self._fetcher.open(reference, param=param) as body,
                ):
                    return await self._received(body.chunks, body.media_type, param, tenant, wants)

    async def receive(
        self,
        chunks: AsyncIterable[bytes],
        *,
        param: str,
        tenant: str = "",
        media_type: str | None = None,
        wants: Wants = "any",
    ) -> Media:
        """An upload, kept at once. Raises as `draft`."""
        async with self.draft(
            chunks, param=param, tenant=tenant, media_type=media_type, wants=wants
        ) as drafted:
            return await drafted.commit()

    @asynccontextmanager
    async def draft(
        self,
        chunks: AsyncIterable[bytes],
        *,
        param: str,
        tenant: str,
        media_type: str | None = None,
        wants: Wants = "any",
    ) -> AsyncIterator[Drafted]:
        """An upload, of at most `max_upload` bytes; `media_type` is what its sender says. Gone without `commit`.

        Raises BodyTooLarge, InvalidRequest, StoreUnavailable, Unavailable, and what `chunks` raises.
        """
        bounded = _bounded(chunks, self._settings.max_upload, param)
        async with self._drafted(bounded, media_type, param, tenant, wants) as drafted:
            yield drafted

    async def take_all(self, request: Request, *, tenant: str, host: str | None = None) -> None:
        """Take every file that a request names: its body then names artifacts, its `files` hold what was measured.

        Raises as `take`, InvalidRequest for too many, and BodyTooLarge for more bytes than one request may name.
        """
        places = request.places()
        most = self._settings.max_media_per_request
        if len(places) > most:
            raise errors.InvalidRequest(
                f"The request names {len(places)} files, more than the limit of {most} of this server.",
                param=places[most].param,
            )
        if places:
            await self._take_places(places, request.files, tenant, host)

    async def _take_places(
        self, places: Sequence[FilePlace], known: dict[str, FileFacts], tenant: str, host: str | None
    ) -> None:
        """Take files a few at a time. The first error ends the others."""
        deadline = asyncio.get_running_loop().time() + self._settings.request_fetch_timeout
        turns, size = asyncio.Semaphore(AT_ONCE), 0

        async def take(place: FilePlace) -> None:
            nonlocal size
            async with turns:
                media = await self.take(
                    place.named,
                    param=place.param,
                    tenant=tenant,
                    wants=place.kind.value,
                    raw_base64=place.bare,
                    deadline=deadline,
                    host=host,
                )
            size += media.size
            self._refuse_beyond(size, place.param)
            place.put(f"artifact:{media.sha256}")
            facts = media.facts
            known[place.param] = FileFacts(
                media.media_type, media.size, facts.width, facts.height, facts.seconds
            )

        tasks = [asyncio.create_task(take(place)) for place in places]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def _turn(self, tenant: str, deadline: float | None) -> AsyncIterator[None]:
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout_at(deadline):
                    await held.enter_async_context(self._fetching.turn(tenant))
            except TimeoutError:
                # It is others' servers that are slow, so the caller may come again.
                longest = self._settings.request_fetch_timeout
                raise errors.Unavailable(
                    f"This server was busy fetching other files for {longest:g} s.", retry_after=longest
                ) from None
            yield

    @asynccontextmanager
    async def _in_time(self, deadline: float | None, param: str) -> AsyncIterator[None]:
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            longest = self._settings.request_fetch_timeout
            raise failed(param, f"all files of the request together took longer than {longest:g} s") from None

    def _refuse_beyond(self, size: int, param: str) -> None:
        """An engine may get all files of a request in one body, each as often as it is named."""
        most = self._settings.most_bytes
        if size > most:
            raise errors.BodyTooLarge(
                f"The files of the request have at least {size} bytes together, more than the limit of {most} bytes of "
                "this server; one that is named twice counts twice.",
                param=param,
            )

    async def close(self) -> None:
        """End the processes that look into files."""
        await self._prober.close()

    async def _parsed(self, value: Any, param: str, raw_base64: bool, host: str | None) -> Reference:
        told = {place_of(f"http://{host}"), place_of(f"https://{host}")} if host else set()
        places = self._ours.union(place for place in told if place)
        how: dict[str, Any] = {
            "param": param,
            "limit": self._settings.max_upload,
            "raw_base64": raw_base64,
            "ours": places,
        }
        if isinstance(value, str) and len(value) > CHUNK:
            # Megabytes of base64 would hold up everybody else.
            return await asyncio.to_thread(parse, value, **how)
        return parse(value, **how)

    async def _stored(self, sha256: str, param: str, tenant: str, wants: Wants) -> Media:
        artifact = await self._artifacts.stat(sha256)
        if artifact is None:
            raise errors.InvalidRequest(f"There is no artifact {sha256}, which '{param}' names.", param=param)
        facts = self._recalled(sha256)
        if facts is None:
            async with self._artifacts.local_path(sha256) as path:
                facts = await self._look(sha256, path, tenant)
        judge(facts, param=param, wants=wants, limits=self._limits)
        return _media(artifact, facts)

    async def _received(
        self, chunks: AsyncIterable[bytes], claimed: str | None, param: str, tenant: str, wants: Wants
    ) -> Media:
        async with self._drafted(chunks, claimed, param, tenant, wants) as drafted:
            return await drafted.commit()

    @asynccontextmanager
    async def _drafted(
        self, chunks: AsyncIterable[bytes], claimed: str | None, param: str, tenant: str, wants: Wants
    ) -> AsyncIterator[Drafted]:
        async with self._artifacts.upload() as upload:
            async for chunk in chunks:
                await upload.write(chunk)
            if not upload.size:
                raise errors.InvalidRequest(f"The file in '{param}' is empty.", param=param)
            facts = self._recalled(upload.sha256)
            if facts is None:
                facts = await self._look(upload.sha256, await upload.local(), tenant)
            judge(facts, param=param, wants=wants, limits=self._limits)
            yield Drafted(upload, facts, claimed)

    def _recalled(self, sha256: str) -> Facts | None:
        facts, until = self._known.get(sha256, (None, 0.0))
        if facts is None or asyncio.get_running_loop().time() > until:
            return None
        self._known.move_to_end(sha256)
        return facts

    async def _look(self, sha256: str, path: Path, tenant: str) -> Facts:
        facts = await self._prober.probe(path, tenant)
        # What could not be looked into may have been this machine's fault, so only what cost much is remembered.
        if facts.error is None or facts.slow:
            now = asyncio.get_running_loop().time()
            self._known[sha256] = facts, now + SLOW_SECONDS if facts.slow else math.inf
            self._known.move_to_end(sha256)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return facts


def judge(facts: Facts, *, param: str, wants: Wants, limits: Limits) -> None:
    """Raise InvalidRequest unless a file is of a wanted kind and within the limits. Pure.

    1. It could be looked into. 2. It is what is wanted. 3. Pixels, 4. frames, 5. seconds: within bounds, and seconds
    known, because an unknown length has no bound.
    """
    if facts.error is not None:
        raise errors.InvalidRequest(f"The file in '{param}' cannot be used: {facts.error}.", param=param)
    fits = {
        "image": facts.kind == "image",
        "audio": facts.channels is not None,
        "video": facts.kind == "video",
        "any": True,
    }
    if not fits[wants]:
        found = facts.media_type or "of an unknown format"
        raise errors.InvalidRequest(
            f"Invalid '{param}': expected {_WANTED[wants]}, but the file is {found}.", param=param
        )
    if (facts.width or 0) * (facts.height or 0) > limits.pixels:
        size = f"{facts.width}x{facts.height} pixels"
        raise _beyond(param, size, f"{limits.pixels} pixels")
    if (facts.frames or 0) > limits.frames:
        raise _beyond(param, f"{facts.frames} frames", f"{limits.frames}")
    if facts.kind in ("audio", "video"):
        if facts.seconds is None or not facts.seconds >= 0:
            raise errors.InvalidRequest(f"The length of the file in '{param}' cannot be told.", param=param)
        if facts.seconds > limits.seconds:
            raise _beyond(param, f"{facts.seconds:.1f} s", f"{limits.seconds:g} s")


def _beyond(param: str, found: str, limit: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(
        f"The file in '{param}' has {found}, more than the limit of {limit} of this server.", param=param
    )


def _media(artifact: Artifact, facts: Facts) -> Media:
    return Media(artifact.sha256, facts.media_type or artifact.media_type, artifact.size, facts)


def _plain(claimed: str | None) -> str:
    """A sender's word is taken for what nobody here can read, but not that it is text, picture or sound."""
    lower = (claimed or "").lower()
    return lower if _CLAIM.fullmatch(lower) else OCTETS


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


async def _bounded(chunks: AsyncIterable[bytes], limit: int, param: str) -> AsyncIterator[bytes]:
    left = limit
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise errors.BodyTooLarge(
                f"The file in '{param}' is larger than {limit} bytes, the limit of this server.", param=param
            )
        yield chunk
