"""Reply frames: the bytes that carry answers from a replica to the api process that waits.

One packed entry of a reply stream holds any number of frames, each ``id[36] kind[1] token[16] seq[4] size[4] data``
with big-endian integers. The Lua prelude packs the same layout.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

TOKEN_LENGTH = 16
_HEAD = struct.Struct(">36sc16sII")


class FrameKind(StrEnum):
    CHUNK = "C"
    """Whole server-sent events."""
    RESULT = "R"
    """The engine's response body. Last."""
    END = "D"
    """The stream ended well; its seq is the number of chunks. Last."""
    ERROR = "E"
    """A failure as JSON: code, message, status, param. Last."""


LAST = frozenset({FrameKind.RESULT, FrameKind.END, FrameKind.ERROR})


@dataclass(frozen=True, slots=True)
class Frame:
    """One piece of an answer. `seq` counts a job's chunks from 0."""

    job_id: str
    kind: FrameKind
    token: str
    seq: int
    data: bytes

    @property
    def last(self) -> bool:
        return self.kind in LAST

    @property
    def media_type(self) -> str:
        return "application/json"


def pack(job_id: str, kind: FrameKind, token: str, seq: int, data: bytes) -> bytes:
    """The bytes of one frame."""
    return _HEAD.pack(job_id.encode(), kind.encode(), token.encode(), seq, len(data)) + data


def unpack(entry: bytes) -> Iterator[Frame]:
    """The frames of a packed entry, in order."""
    offset = 0
    while offset < len(entry):
        job_id, kind, token, seq, size = _HEAD.unpack_from(entry, offset)
        offset += _HEAD.size
        yield Frame(
            job_id.decode(), FrameKind(kind.decode()), token.decode(), seq, entry[offset : offset + size]
        )
        offset += size
