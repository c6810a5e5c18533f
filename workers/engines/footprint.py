"""What this process holds in memory, as far as it can be asked cheaply: /proc, and torch's own counters."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Resident set of this process; the peak where the system has no /proc."""
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[1]) * PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_bytes() -> int:
    """Bytes that torch's allocator holds on an accelerator; 0 without torch or without one.

    Asked of the module that is already imported: this file must not be the one that loads torch.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.memory_reserved())


def shrink() -> None:
    """Give back what torch's allocator keeps of an accelerator's memory without using it."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def report() -> dict[str, int]:
    resident, device = resident_bytes(), device_bytes()
    return {"memory_bytes": device or resident, "resident_bytes": resident, "device_bytes": device}
