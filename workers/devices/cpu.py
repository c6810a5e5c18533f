"""The CPU as a device: the host's memory, or the control group's where that is smaller."""

import platform
from pathlib import Path
from typing import Any

import psutil

_GROUP = Path("/sys/fs/cgroup")


def detect() -> list[dict[str, Any]]:
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    limit, used = _read(_GROUP / "memory.max"), _read(_GROUP / "memory.current")
    if limit is not None and limit < total:
        total, free = limit, max(min(free, limit - (used or 0)), 0)
    product = platform.processor() or platform.machine()
    return [{"name": "cpu:0", "kind": "cpu", "product": product, "memory_total": total, "memory_free": free}]


def _read(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
