"""What /proc says of processes: processor time and memory. Reads only; a process that is gone counts nothing."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from inferq.shim import descendants

_TICK = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def tree(pid: int) -> set[int]:
    return {pid, *descendants(pid)}


def command(pid: int) -> list[str]:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of all threads, in steps of 10 ms."""
    return sum(_cpu(pid) for pid in pids)


def _cpu(pid: int) -> float:
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def rss_mb(pids: Iterable[int]) -> float:
    """Resident memory; pages that processes share are counted in each."""
    return sum(_field(pid, "status", "VmRSS") for pid in pids) / 1024


def pss_mb(pids: Iterable[int]) -> float:
    """Resident memory with shared pages divided among those who share them."""
    return sum(_field(pid, "smaps_rollup", "Pss") for pid in pids) / 1024


def _field(pid: int, file: str, name: str) -> int:
    try:
        lines = (_PROC / str(pid) / file).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


@dataclass
class Meter:
    """Processor time that each role used since the meter was made."""

    roles: Callable[[], Mapping[str, set[int]]]

    def __post_init__(self) -> None:
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        return {role: cpu_seconds(pids) for role, pids in self.roles().items()}

    def used(self) -> dict[str, float]:
        """Seconds per role."""
        return {role: now - self._before.get(role, 0.0) for role, now in self._read().items()}

    def per(self, count: float, client_s: float = 0.0) -> dict[str, float]:
        """Milliseconds per request (or token) and role, with the load program as `client` and their sum."""
        used = {**self.used(), "client": client_s}
        shares = {role: round(seconds * 1000 / max(count, 1), 4) for role, seconds in used.items()}
        return {**shares, "all": round(sum(shares.values()), 4)}
