"""The CPU as a device: the host's memory, or the control group's where that is smaller."""

import platform
from pathlib import Path
from typing import Any

import psutil

_GROUP = Path("/sys/fs/cgroup")


def detect() -> list[dict[str, Any]]:
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    limit = _read(_GROUP / "memory.max")
    if limit is not None and limit < total:
        total, free = limit, max(min(free, limit - _used()), 0)
    product = platform.processor() or platform.machine()
    return [{"name": "cpu:0", "kind": "cpu", "product": product, "memory_total": total, "memory_free": free}]


def _used() -> int:
    """What the group cannot give up: its files in the page cache count as free, as the host's do."""
    try:
        lines = (_GROUP / "memory.stat").read_text().splitlines()
    except OSError:
        lines = []
    cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max((_read(_GROUP / "memory.current") or 0) - cached, 0)


def _read(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
