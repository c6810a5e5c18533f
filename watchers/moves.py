"""Files change place: written under a hidden name and renamed, or moved without ever replacing another file.

Everything here blocks and raises OSError. It knows paths only, no jobs.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from watchers import names
from watchers.identity import Identity

_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """The file appears at once and complete, and is on the disk when this returns. Replaces a file of that name."""
    with Partial(path.parent) as partial:
        for chunk in chunks:
            partial.write(chunk)
        partial.place(path)


class Partial:
    """A hidden file in `folder` that gets its name when it is complete, or vanishes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f".{uuid.uuid4().hex}{names.PARTIAL}"
        self._file = self._path.open("xb")

    def __enter__(self) -> "Partial":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)

    def place(self, path: Path) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.rename(path)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """A rename is on the disk when its folder is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_new(source: Path, target: Path) -> None:
    """Rename that raises FileExistsError instead of replacing. May be repeated after a crash in its middle."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if not target.samefile(source):
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        source.rename(target)
        return
    source.unlink()


def move_numbered(source: Path, folder: Path, name: str) -> Path:
    """Move into `folder` under the name, or under NAME-2, NAME-3, ... when it is taken; where it is now."""
    stem, extension = names.split(name)
    number = 1
    while True:
        target = folder / names.numbered(stem, number, extension)
        try:
            move_new(source, target)
        except FileExistsError:
            number += 1
        else:
            return target


def move_if(source: Path, target: Path, identity: Identity) -> bool:
    """Move that very file. False when it is gone, or when somebody replaced it: the new one then stays at `source`."""
    try:
        source.rename(target)
    except FileNotFoundError:
        return False
    if Identity.of(target.lstat()) == identity:
        return True
    move_numbered(target, source.parent, source.name)
    return False
