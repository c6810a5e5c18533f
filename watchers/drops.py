"""Reading a dropped file: whole and at rest, or not at all. Blocks; never follows a link, never waits for a pipe."""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

from inferq import errors
from watchers.identity import Identity
from watchers.names import is_job_file

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Unsettled(Exception):
    """The file is gone, is being written, or is no longer the one that was seen."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A file's content, and which state of the file it is."""

    identity: Identity
    sha256: str
    data: bytes


def scan(folder: Path, limit: int) -> dict[str, Identity]:
    """The job files in the folder, at most `limit`. Raises OSError."""
    with os.scandir(folder) as entries:
        found = ((entry.name, identify(folder / entry.name)) for entry in entries if is_job_file(entry.name))
        return dict(itertools.islice(((name, seen) for name, seen in found if seen is not None), limit))


def identify(path: Path) -> Identity | None:
    """Which file lies there; None for none, and for folders, links and devices."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            return Identity.of(found)
    return None


def read(path: Path, expected: Identity | None, limit: int) -> Drop:
    """The file, if it is still the one that was seen (None: any) and nobody writes to it.

    Raises Unsettled, BodyTooLarge (the file was not read), InvalidRequest when it may not be read, and other OSErrors.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except PermissionError as error:
        raise errors.InvalidRequest(f"The file cannot be read: {error.strerror}.") from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise Unsettled from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        before = os.fstat(descriptor)
        identity = Identity.of(before)
        changed = expected is not None and identity != expected
        if changed or not stat.S_ISREG(before.st_mode) or _has_writer(descriptor):
            raise Unsettled
        if identity.size > limit:
            raise errors.BodyTooLarge(
                f"The file has {identity.size} bytes; the limit of this server is {limit}."
            )
        data = file.read(limit + 1)
        if Identity.of(os.fstat(descriptor)) != identity or len(data) != identity.size:
            raise Unsettled
    return Drop(identity, hashlib.sha256(data).hexdigest(), data)


def _has_writer(descriptor: int) -> bool:
    """Whether the kernel knows of a process that has the file open for writing.

    A read lease is refused then. Other people's files, network file systems and other kernels give no answer; there
    the quiet time alone decides.
    """
    take = getattr(fcntl, "F_SETLEASE", None)
    if take is None:
        return False
    try:
        # A writer that comes just now sends the holder a signal. The usual one, SIGIO, would end this process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, take, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, take, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
