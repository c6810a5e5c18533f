"""Which drop of a file this is, and the job id that follows from it.

The id is computed, not drawn: after a crash between "accepted" and "moved away" the same file gives the same id, and
accepting an id twice changes nothing. It has the layout of UUID version 7 with the file's modification time, because
lists of jobs sort by id; a hash fills the random part. Of that part, 12 bits count how often the very same file was
moved back into the watched directory after its job was over, which asks for another run.
"""

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

MOST_REPEATS = 0xFFF


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one file, and one state of it, from another without reading it. Survives a rename."""

    mtime_ns: int
    inode: int
    size: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "Identity":
        return cls(stat.st_mtime_ns, stat.st_ino, stat.st_size)


def job_id(folder: Path, name: str, identity: Identity, sha256: str, repeat: int = 0) -> str:
    """The id of the job that this file asks for. `repeat` counts the runs of the same file before."""
    drop = f"{folder}\0{name}\0{identity.inode}\0{identity.mtime_ns}\0{identity.size}\0{sha256}"
    digest = hashlib.sha256(drop.encode(errors="surrogateescape")).digest()
    millis = max(identity.mtime_ns // 1_000_000, 0) & (1 << 48) - 1
    low = int.from_bytes(digest[:8], "big") & (1 << 62) - 1
    return str(uuid.UUID(int=millis << 80 | 0x7 << 76 | repeat << 64 | 0b10 << 62 | low))


def is_same_drop(one: str, other: str) -> bool:
    """True for job ids that differ at most in `repeat`."""
    counter = MOST_REPEATS << 64
    return uuid.UUID(one).int | counter == uuid.UUID(other).int | counter
