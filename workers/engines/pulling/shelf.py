"""The folder of models: where a pull gathers its files unseen, and how they become a model in one step.

    models/.pull-locks/NAME        held while NAME is pulled; the kernel frees it when its holder dies
    models/.pull/NAME/parts/KEY    a file on its way; KEY is made of its path and version, never of the hub's path alone
    models/.pull/NAME/parts/KEY.done   a file that was checked
    models/.pull/NAME/tree/        the whole model, renamed to models/NAME when nothing is missing
    models/NAME/.inferq-pull.json  where a model came from, and the checksums of its files

What is left of a pull that never went on is removed after a week.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

from workers.engines.pulling.download import sha256_of
from workers.engines.pulling.hands import Hands
from workers.engines.pulling.hubs import MANIFEST, RemoteFile
from workers.engines.pulling.troubles import CannotPull, told

STAGING, LOCKS = ".pull", ".pull-locks"
FORGET_AFTER = 7 * 86400.0
LOOK_EVERY = 0.3


class Shelf:
    """One model's place below `models`, from its first byte to its last. What takes long is for the pull's `hands`."""

    def __init__(self, models: Path, name: str, hands: Hands) -> None:
        self._hands = hands
        self.target = models / name
        self.staging = models / STAGING / name
        self.parts = self.staging / "parts"
        self._tree = self.staging / "tree"

    @asynccontextmanager
    async def locked(self, waiting: Callable[[], None]) -> AsyncIterator[None]:
        """Alone with this name. `waiting` is called while somebody else has it."""
        try:
            lock = _lock(self.target)
        except OSError as error:
            raise told(error, "Writing to the folder of models") from error
        with lock:
            while not _take(lock.fileno()):
                waiting()
                await asyncio.sleep(LOOK_EVERY)
            yield

    def part(self, file: RemoteFile) -> Path:
        text = "\0".join((file.path, file.version or file.url, str(file.size)))
        return self.parts / hashlib.sha256(text.encode()).hexdigest()[:40]

    def done(self, file: RemoteFile) -> Path:
        return self.part(file).with_suffix(".done")

    def begin(self) -> None:
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise told(error, "Writing to the folder of models") from error

    def standing(self, files: tuple[RemoteFile, ...], source: str) -> dict[str, str]:
        """The files that the model there has already, each with its SHA-256; empty where there is no such model.

        Raises CannotPull where something else has this name, Left.
        """
        if not self.target.exists():
            return {}
        manifest = _manifest(self.target)
        same = {}
        for file in files:
            digest = _same(self.target / file.path, file, manifest["files"].get(file.path), self._hands)
            if digest:
                same[file.path] = digest
        if len(same) < len(files) and manifest["source"] != source and any(self.target.iterdir()):
            raise CannotPull(
                f"models/{self.target.name} is there already and is something else; give another 'name'.",
                code="name_taken",
                param="name",
            )
        return same

    def keep(self, file: RemoteFile) -> None:
        """Take a file of the model that is there into the next version of it."""
        done = self.done(file)
        if not done.exists():
            _link(self.target / file.path, done)

    def publish(
        self, files: tuple[RemoteFile, ...], digests: Mapping[str, str], source: str, revision: str | None
    ) -> None:
        """Put the files together and give them their name. Nothing of it is seen before it is whole.

        Raises CannotPull, and Left as long as the model has not its name.
        """
        try:
            shutil.rmtree(self._tree, ignore_errors=True)
            for file in files:
                self._hands.check()
                place = self._tree / file.path
                place.parent.mkdir(parents=True, exist_ok=True)
                _link(self.done(file), place)
            self._write_manifest(files, digests, source, revision)
            old = self.staging / "old"
            shutil.rmtree(old, ignore_errors=True)
            self._hands.check()
            if self.target.exists():
                # Between these two names there is no model. A pull that dies here is ended by its next run.
                self.target.rename(old)
            self._tree.rename(self.target)
            _sync_folder(self.target.parent)
        except OSError as error:
            raise told(error, f"Placing models/{self.target.name}") from error
        self.drop()

    def drop(self) -> None:
        """Remove what was gathered."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def _write_manifest(
        self, files: tuple[RemoteFile, ...], digests: Mapping[str, str], source: str, revision: str | None
    ) -> None:
        entries = {}
        for file in files:
            facts = (self._tree / file.path).stat()
            entries[file.path] = {
                "size": facts.st_size,
                "sha256": digests[file.path],
                "version": file.version,
                "mtime_ns": facts.st_mtime_ns,
            }
        record = {"source": source, "revision": revision, "pulled_at": time.time(), "files": entries}
        (self._tree / MANIFEST).write_text(json.dumps(record, indent=1))


def sweep(models: Path) -> None:
    """Remove what pulls left that nobody has taken up for a week."""
    before = time.time() - FORGET_AFTER
    for staging in (models / STAGING).glob("*/"):
        with contextlib.suppress(OSError):
            newest = max(
                (path.stat().st_mtime for path in staging.rglob("*")), default=staging.stat().st_mtime
            )
            if newest < before:
                with _lock(models / staging.name) as lock:
                    if _take(lock.fileno()):
                        shutil.rmtree(staging, ignore_errors=True)


def _lock(target: Path) -> TextIO:
    """The file of a name's lock, in a folder of its own: any name may end like a lock's."""
    folder = target.parent / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / target.name).open("w")


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _manifest(folder: Path) -> dict[str, Any]:
    """What an earlier pull wrote down; empty for folders of other origin, or when it cannot be read."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
        files = {path: entry for path, entry in found["files"].items() if isinstance(entry, dict)}
        return {"source": found["source"], "files": files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"source": None, "files": {}}


def _same(path: Path, file: RemoteFile, entry: Mapping[str, Any] | None, hands: Hands) -> str | None:
    """The SHA-256 of the file there if it is the wanted one. What was written down counts while nobody touched it."""
    try:
        facts = path.stat()
        if file.size is not None and facts.st_size != file.size:
            return None
        if entry and (entry.get("size"), entry.get("mtime_ns")) == (facts.st_size, facts.st_mtime_ns):
            digest = str(entry.get("sha256"))
            if file.sha256:
                return digest if digest == file.sha256 else None
            if file.version and entry.get("version") == file.version:
                return digest
        if not file.sha256 and not file.blob:
            return None
        digest, right = sha256_of(path, file, hands)
        return digest if right else None
    except OSError:
        return None


def _link(there: Path, here: Path) -> None:
    """A second name for a file; a copy where the file system has no second names."""
    try:
        os.link(there, here)
    except OSError:
        partial = here.with_name(f"{here.name}.copy")
        shutil.copy2(there, partial)
        partial.rename(here)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
