"""The artifact store: puts and reads blobs from coroutines, with file systems' errors in our words.

It must not know SQL: replicas use this module alone. How blobs lie on the file system is for
`storage.blobs` to know, and how local copies of remote ones are kept for `storage.copies`.
"""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar
from weakref import WeakValueDictionary

from inferq import errors
from storage.blobs import Artifact, Blobs, Draft
from storage.copies import Copies
from storage.systemerrors import first_line, is_no_space

__all__ = ["CHUNK", "COPIES_BYTES", "COPIES_FOLDER", "LEFTOVER_AGE", "Artifact", "ArtifactStore", "Upload"]

log = logging.getLogger("storage")

CHUNK = 1 << 20
"""Bytes that one read takes into memory."""
LEFTOVER_AGE = 86_400.0
"""Seconds after which an unfinished file has no living writer."""
COPIES_FOLDER = "artifact-copies"
"""Folder under INFERQ_HOME for local copies of artifacts that lie elsewhere, and for drafts of new ones."""
COPIES_BYTES = 8 * 2**30
"""Bytes of local copies that are kept."""

T = TypeVar("T")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactStore:
    """Bytes by their sha256. Every method raises StoreUnavailable when the file system is away or full."""

    def __init__(self, blobs: Blobs, copies: Copies, shown: str) -> None:
        self._blobs = blobs
        self._copies = copies
        self._copying: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._shown = shown

    @classmethod
    async def open(cls, url: str, home: Path, *, copies_bytes: int = COPIES_BYTES) -> Self:
        """The store at an fsspec URL, or in a folder (relative ones lie under `home`), which is made.

        `copies_bytes` bounds the local copies of artifacts that lie elsewhere; those in use may go beyond it.
        """
        place = url if "://" in url else str((home / url).absolute())
        folder = (home / COPIES_FOLDER).absolute()
        try:
            blobs = await asyncio.to_thread(Blobs.at, place, folder)
        except Exception as error:
            # Said to whoever starts the process, who has to know where.
            raise errors.StoreUnavailable(
                f"the artifact store {place} cannot be used: {_reason(error)}"
            ) from error
        return cls(blobs, Copies(folder, copies_bytes), place)

    @property
    def local_folder(self) -> Path:
        """Where the files of `local_path` lie."""
        return Path(self._blobs.root) if self._blobs.local else self._copies.folder

    async def put(
        self,
        data: bytes | bytearray | memoryview | AsyncIterable[bytes],
        media_type: str = "application/octet-stream",
    ) -> Artifact:
        """Store the bytes. The same bytes are stored once, and keep the media type they first came with.

        What `data` raises while it is read goes through, and nothing is stored.
        """
        async with self.upload() as upload:
            if isinstance(data, bytes | bytearray | memoryview):
                await upload.write(data)
            else:
                async for chunk in data:
                    await upload.write(chunk)
            return await upload.commit(media_type)

    @asynccontextmanager
    async def upload(self) -> AsyncIterator["Upload"]:
        """For bytes that are looked into before they become an artifact. Without a `commit` nothing is left of them."""
        draft = await self._run(Draft, self._blobs)
        try:
            yield Upload(draft, self._run)
        finally:
            if not draft.ended:
                # Shielded: the file goes even when it is a cancellation that ends the writing.
                await asyncio.shield(asyncio.to_thread(draft.abandon))

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

    @asynccontextmanager
    async def local_path(self, sha256: str) -> AsyncIterator[Path]:
        """A local file with the artifact's bytes, to be read inside the block: the blob itself, or a copy of it.

        A copy stays for the next reader until newer ones need its room. Raises NotFound.
        """
        if self._blobs.local:
            if await self.stat(sha256) is None:
                raise errors.NotFound(f"there is no artifact {sha256}")
            yield Path(self._blobs.path(sha256))
            return
        descriptor = await self._copy(sha256)
        try:
            yield self._copies.path(sha256)
        finally:
            os.close(descriptor)

    async def _copy(self, sha256: str) -> int:
        """An open descriptor of the copy, made if there is none; while it is open, the copy stays."""
        if not _DIGEST.fullmatch(sha256):
            raise errors.NotFound(f"there is no artifact {sha256}")
        async with self._copying.setdefault(sha256, asyncio.Lock()):
            descriptor = self._copies.take(sha256)
            while descriptor is None:
                try:
                    async with self.upload() as upload:
                        async for chunk in self.open_read(sha256):
                            await upload.write(chunk)
                        path = await upload.local()
                        if upload.sha256 != sha256:
                            raise errors.StoreUnavailable(f"artifact {sha256} is damaged")
                        descriptor = self._copies.add(path, sha256)
                    await self._run(self._copies.evict)
                except BaseException:
                    if descriptor is not None:
                        os.close(descriptor)
                    raise
            return descriptor

    async def sweep(self, age: float = LEFTOVER_AGE) -> int:
        """Remove what killed writers left behind at least `age` seconds ago; how many files that were."""
        return await self._run(self._blobs.sweep, age)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.to_thread(function, *arguments)
        except Exception as error:
            log.warning("the artifact store %s cannot be used: %s", self._shown, _reason(error))
            # Callers read this: where the store lies, and what its library says of it, is not for them.
            why = ": the disk is full" if is_no_space(error) else ""
            raise errors.StoreUnavailable(f"the artifact store cannot be used{why}") from error


class Upload:
    """Bytes on their way into the store: a local file until `commit`."""

    def __init__(self, draft: Draft, run: Callable[..., Awaitable[Any]]) -> None:
        self._draft = draft
        self._run = run

    @property
    def size(self) -> int:
        return self._draft.size

    @property
    def sha256(self) -> str:
        """The digest of what was written so far."""
        return self._draft.sha256

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        await self._run(self._draft.write, data)

    async def local(self) -> Path:
        """The file with all that was written so far. It is gone after `commit`, or at the end of the block."""
        await self._run(self._draft.flush)
        return self._draft.path

    async def commit(self, media_type: str) -> Artifact:
        """Make it an artifact. The same bytes are stored once, and keep the media type they first came with."""
        artifact: Artifact = await self._run(self._draft.commit, media_type)
        return artifact


def _reason(error: Exception) -> str:
    """Each file system brings its library's own errors; here they all mean the same."""
    return "the disk is full" if is_no_space(error) else first_line(error)
