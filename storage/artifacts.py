"""The artifact store: puts and reads blobs from coroutines, with file systems' errors in our words.

It must not know SQL: replicas use this module alone. How blobs lie on the file system is for
`storage.blobs` to know.
"""

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import Self, TypeVar

from inferq import errors
from storage.blobs import Artifact, Blobs, Draft
from storage.systemerrors import first_line, is_no_space

__all__ = ["CHUNK", "LEFTOVER_AGE", "Artifact", "ArtifactStore"]

CHUNK = 1 << 20
"""Bytes that one read takes into memory."""
LEFTOVER_AGE = 86_400.0
"""Seconds after which an unfinished file has no living writer."""

T = TypeVar("T")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactStore:
    """Bytes by their sha256. Every method raises StoreUnavailable when the file system is away or full."""

    def __init__(self, blobs: Blobs, shown: str) -> None:
        self._blobs = blobs
        self._shown = shown

    @classmethod
    async def open(cls, url: str, home: Path) -> Self:
        """The store at an fsspec URL, or in a folder (relative ones lie under `home`), which is made."""
        place = url if "://" in url else str((home / url).absolute())
        return cls(await _blocking(place, Blobs.at, place), place)

    async def put(
        self,
        data: bytes | bytearray | memoryview | AsyncIterable[bytes],
        media_type: str = "application/octet-stream",
    ) -> Artifact:
        """Store the bytes. The same bytes are stored once, and keep the media type they first came with.

        What `data` raises while it is read goes through, and nothing is stored.
        """
        draft = await self._run(Draft, self._blobs)
        try:
            if isinstance(data, bytes | bytearray | memoryview):
                await self._run(draft.write, data)
            else:
                async for chunk in data:
                    await self._run(draft.write, chunk)
            return await self._run(draft.commit, media_type)
        except BaseException:
            # Shielded: the file goes even when it is a cancellation that ends the writing.
            await asyncio.shield(asyncio.to_thread(draft.abandon))
            raise

    async def stat(self, sha256: str) -> Artifact | None:
        """What is known of an artifact, or None when there is none."""
        return await self._run(self._blobs.stat, sha256) if _DIGEST.fullmatch(sha256) else None

    async def open_read(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, not including, `end` (None: the end), in pieces of at most CHUNK.

        Raises NotFound at the first piece when there is no such artifact; where that is late, `stat` first.
        """
        artifact = await self.stat(sha256)
        if artifact is None:
            raise errors.NotFound(f"there is no artifact {sha256}")
        position, stop = max(start, 0), artifact.size if end is None else min(end, artifact.size)
        while position < stop:
            chunk = await self._run(self._blobs.read, sha256, position, min(position + CHUNK, stop))
            if not chunk:
                raise errors.StoreUnavailable(f"artifact {sha256} ends early, after {position} bytes")
            position += len(chunk)
            yield chunk

    async def sweep(self, age: float = LEFTOVER_AGE) -> int:
        """Remove what killed writers left behind at least `age` seconds ago; how many files that were."""
        return await self._run(self._blobs.sweep, age)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await _blocking(self._shown, function, *arguments)


async def _blocking(shown: str, function: Callable[..., T], *arguments: object) -> T:
    try:
        return await asyncio.to_thread(function, *arguments)
    except Exception as error:
        # Each file system brings its library's own errors; here they all mean the same.
        full = "the disk is full" if is_no_space(error) else first_line(error)
        raise errors.StoreUnavailable(f"the artifact store {shown} cannot be used: {full}") from error
