"""A disk that can really be full: a small tmpfs, where the system lets us mount one."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A small file system, mounted on a folder."""

    folder: Path

    def fill(self) -> None:
        self.take_all()
        assert os.statvfs(self.folder).f_bavail == 0

    def take_all(self) -> None:
        """As `fill`, where others may give something back meanwhile."""
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
                while file.write(bytes(size)):
                    pass

    def free(self) -> None:
        self._filler.unlink()

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"


def mount(folder: Path, size: str = "1m") -> Disk | None:
    """A file system of its own on `folder`; None where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "inferq-test", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    return Disk(folder) if mounted else None


def may_mount() -> bool:
    with tempfile.TemporaryDirectory(prefix="iq-mount-") as folder:
        disk = mount(Path(folder) / "disk")
        if disk:
            disk.unmount()
        return disk is not None


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Skips the test where mounting is not allowed."""
    disk = mount(folder)
    if disk is None:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield disk
    finally:
        disk.unmount()
