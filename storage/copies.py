"""Local copies of artifacts that lie elsewhere: one folder per home, shared by all processes there.

A copy in use is held by a shared lock on the file (flock), so it is known to every process and forgotten with the one
that dies. When the copies take more room than they may, those used longest ago go, as far as nobody holds them. Must
not know where the bytes come from.
"""

import contextlib
import fcntl
import os
import re
from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Copies:
    """Copies named by their sha256, up to `limit` bytes. Errors are those of the file system."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self._limit = limit

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def take(self, sha256: str) -> int | None:
        """A descriptor that holds the copy until it is closed; None when there is none, or it is just being removed."""
        try:
            descriptor = os.open(self.path(sha256), os.O_RDONLY)
        except FileNotFoundError:
            return None
        if not _lock(descriptor, fcntl.LOCK_SH) or not _is_at(descriptor, self.path(sha256)):
            os.close(descriptor)
            return None
        os.utime(descriptor)
        return descriptor

    def add(self, file: Path, sha256: str) -> int | None:
        """Make a complete file on the same file system a copy, and hold it. None as for `take`."""
        descriptor = os.open(file, os.O_RDONLY)
        # Held before it has its name: no other process ever sees it free.
        _lock(descriptor, fcntl.LOCK_SH)
        try:
            # Not a rename: a copy that somebody made meanwhile, and holds, must keep its name.
            os.link(file, self.path(sha256))
        except FileExistsError:
            os.close(descriptor)
            return self.take(sha256)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def evict(self) -> None:
        """Remove copies, the one used longest ago first, until the others fit."""
        entries = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if _DIGEST.fullmatch(path.name):
                    status = path.stat()
                    entries.append((status.st_mtime, status.st_size, path))
        size = sum(entry[1] for entry in entries)
        for _, bytes_, path in sorted(entries):
            if size <= self._limit:
                return
            if _remove(path):
                size -= bytes_


def _remove(path: Path) -> bool:
    """True when it is gone; False when somebody holds it, or was faster."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        if not _lock(descriptor, fcntl.LOCK_EX) or not _is_at(descriptor, path):
            return False
        path.unlink()
    finally:
        os.close(descriptor)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """False when another process has removed or replaced the file between its opening and its locking."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
