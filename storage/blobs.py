"""Blobs: content-addressed files on one fsspec file system, with blocking calls.

It must not know coroutines; `storage.artifacts` runs it in threads.

Layout under the root: ``ab/ab12...`` the bytes, ``ab/ab12....json`` their media type, ``temp/`` what is
being written. A blob exists once its bytes have their name, and that rename comes last: a writer killed at
any moment leaves only files in ``temp/``, or a lone sidecar that the next writer of the same bytes replaces.
Nothing here is ever changed.

Bytes are written to a local file first, the draft, so that they can be looked into before they are anything: in
``temp/`` itself where the root is local, else in the local folder `spool`, from where they are copied when they are
complete.
"""

import contextlib
import hashlib
import json
import os
import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

OCTETS = "application/octet-stream"
_DRAFT = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """Bytes in the store: their sha256 in lower-case hex, their number, and the media type they came with."""

    sha256: str
    size: int
    media_type: str


class Blobs:
    """One root folder on one file system. Errors are those of the file system."""

    def __init__(self, fs: AbstractFileSystem, root: str, spool: Path) -> None:
        self.fs = fs
        self.root = root.rstrip("/")
        self.local = isinstance(fs, LocalFileSystem)
        self.drafts = Path(self.temp) if self.local else spool

    @classmethod
    def at(cls, url: str, spool: Path) -> "Blobs":
        """The blobs under an fsspec URL or a path; the folders are made."""
        # Other hosts write too, so a listing from a while ago proves nothing.
        fs, root = url_to_fs(url, use_listings_cache=False)
        blobs = cls(fs, root, spool)
        fs.makedirs(blobs.temp, exist_ok=True)
        blobs.drafts.mkdir(parents=True, exist_ok=True)
        if blobs.local:
            blobs._make_folders()
        return blobs

    def _make_folders(self) -> None:
        """All folders of blobs, safe on the disk, so that storing a blob has one folder to bring there."""
        new = [path for number in range(256) if not (path := Path(self.root, f"{number:02x}")).exists()]
        for path in new:
            path.mkdir(exist_ok=True)
        if new:
            self.sync_folder(self.root)

    @property
    def temp(self) -> str:
        return f"{self.root}/temp"

    def folder(self, sha256: str) -> str:
        return f"{self.root}/{sha256[:2]}"

    def path(self, sha256: str) -> str:
        return f"{self.folder(sha256)}/{sha256}"

    def stat(self, sha256: str) -> Artifact | None:
        """What is known of a blob, or None when there is none."""
        try:
            size = int(self.fs.info(self.path(sha256))["size"])
        except FileNotFoundError:
            return None
        return Artifact(sha256, size, self._media_type(sha256))

    def read(self, sha256: str, start: int, end: int) -> bytes:
        """The bytes from `start` up to, not including, `end`."""
        return bytes(self.fs.cat_file(self.path(sha256), start=start, end=end))

    def sweep(self, age: float) -> int:
        """Remove unfinished files not written to for `age` seconds; how many there were."""
        limit = time.time() - age
        removed = 0 if self.local else self._sweep_spool(limit)
        for path in self.fs.ls(self.temp, detail=False):
            # Gone meanwhile: its writer renamed it, or another sweep was faster.
            with contextlib.suppress(FileNotFoundError):
                if self.fs.modified(path).timestamp() < limit:
                    self.fs.rm_file(path)
                    removed += 1
        return removed

    def _sweep_spool(self, limit: float) -> int:
        removed = 0
        for path in self.drafts.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if _DRAFT.fullmatch(path.name) and path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        return removed

    def sync_folder(self, path: str) -> None:
        """Bring the names in a local folder to the disk. Elsewhere a finished write is already safe."""
        if self.local:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _media_type(self, sha256: str) -> str:
        try:
            return str(json.loads(self.fs.cat_file(f"{self.path(sha256)}.json"))["media_type"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            # Bytes copied here by hand have no sidecar, and are still worth giving out.
            return OCTETS


class Draft:
    """A blob that is being written, in a local file of its own. End it with `commit` or `abandon`."""

    def __init__(self, blobs: Blobs) -> None:
        name = uuid.uuid4().hex
        self._blobs = blobs
        self._temporary = f"{blobs.temp}/{name}"
        self._hash = hashlib.sha256()
        self.path = blobs.drafts / name
        self.size = 0
        self.ended = False
        self._file = self.path.open("wb")

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)
        self._file.write(data)

    def flush(self) -> None:
        """Bring all that was written into the file at `path`."""
        self._file.flush()

    def commit(self, media_type: str) -> Artifact:
        """Give the bytes their name. If the store has them already, it keeps those, with their media type."""
        artifact = Artifact(self.sha256, self.size, media_type)
        existing = self._blobs.stat(artifact.sha256)
        if existing is not None:
            self._file.close()
            self.path.unlink()
            self.ended = True
            return existing
        self._finish(self._file)
        folder = self._blobs.folder(artifact.sha256)
        if not self._blobs.local:
            self._blobs.fs.makedirs(folder, exist_ok=True)
        self._put_sidecar(artifact)
        if not self._blobs.local:
            self._blobs.fs.put_file(str(self.path), self._temporary)
            self.path.unlink()
        self._blobs.fs.mv(self._temporary, self._blobs.path(artifact.sha256))
        self.ended = True
        self._blobs.sync_folder(folder)
        return artifact

    def abandon(self) -> None:
        """Leave nothing behind, whatever state the draft is in."""
        self.ended = True
        with contextlib.suppress(Exception):
            self._file.close()
        with contextlib.suppress(Exception):
            self.path.unlink()
        if not self._blobs.local:
            with contextlib.suppress(Exception):
                self._blobs.fs.rm_file(self._temporary)

    def _put_sidecar(self, artifact: Artifact) -> None:
        path = f"{self._temporary}.json"
        with self._blobs.fs.open(path, "wb") as stream:
            stream.write(json.dumps({"media_type": artifact.media_type, "size": artifact.size}).encode())
            self._finish(stream)
        self._blobs.fs.mv(path, f"{self._blobs.path(artifact.sha256)}.json")

    def _finish(self, stream: Any) -> None:
        if self._blobs.local:
            stream.flush()
            os.fsync(stream.fileno())
        stream.close()
