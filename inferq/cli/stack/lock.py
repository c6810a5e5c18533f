"""One stack per home: a lock that lives as long as anything of that stack does."""

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path

import psutil

from inferq import errors
from inferq.cli import output

_PATIENCE_SECONDS = 20.0


class HomeLock:
    """Held by its descriptor, which the shim keeps open too: free means that nothing of the stack is left."""

    def __init__(self, home: Path) -> None:
        folder = home / "run"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / "up.lock"
        self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> None:
        """Raises Conflict, which names the running stack. One whose owner was killed is given time to end."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        told = False
        while not self._try():
            pid, url = self._holder()
            if (pid and _is_alive(pid)) or time.monotonic() > deadline:
                raise errors.Conflict(
                    f"inferq already runs for {self._path.parent.parent}: process {pid}, {url}; "
                    f"stop it (kill {pid}), or choose another --home"
                )
            if not told:
                output.notes.print("[dim]waiting for the processes of the last inferq to end[/dim]")
                told = True
            time.sleep(0.1)

    def announce(self, url: str) -> None:
        """Tell who holds the lock, and tell the client of this home where its server is."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)
        self._address.write_text(url + "\n", encoding="utf-8")

    def release(self) -> None:
        self._address.unlink(missing_ok=True)
        os.ftruncate(self.fd, 0)
        os.close(self.fd)

    @property
    def _address(self) -> Path:
        return self._path.with_name("url")

    def _try(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> tuple[int, str]:
        return _read_holder(self.fd)


def stack_of(home: Path) -> set[int]:
    """The process ids of the stack that runs for this home; only reads."""
    try:
        fd = os.open(home / "run" / "up.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return set()
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner, _ = _read_holder(fd)
    else:
        # Nobody holds it: what it says is of a stack that was killed.
        owner = 0
    finally:
        os.close(fd)
    if not owner:
        return set()
    with contextlib.suppress(psutil.Error):
        return {owner, *(child.pid for child in psutil.Process(owner).children(recursive=True))}
    return set()


def _read_holder(fd: int) -> tuple[int, str]:
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
        return int(holder["pid"]), str(holder["url"])
    except (ValueError, KeyError, TypeError):
        return 0, "not serving yet"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
