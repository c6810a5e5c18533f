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
    """The engine's response body, JSON. Last."""
    TYPED = "T"
    """A response body of another type: the media type, a line end, the bytes. Last."""
    END = "D"
    """The stream ended well; its seq is the number of chunks. Last."""
    ERROR = "E"
    """A failure as JSON: code, message, status, param. Last."""


JSON = "application/json"
RESULTS = frozenset({FrameKind.RESULT, FrameKind.TYPED})
PARTS = frozenset({FrameKind.CHUNK, FrameKind.END})
"""Of a stream, which is of one run from the first to the last."""
LAST = frozenset({*RESULTS, FrameKind.END, FrameKind.ERROR})


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
    def result(self) -> tuple[bytes, str]:
        """The response body of a result, and its media type."""
        if self.kind is not FrameKind.TYPED:
            return self.data, JSON
        media_type, _, data = self.data.partition(b"\n")
        return data, media_type.decode()


def pack(job_id: str, kind: FrameKind, token: str, seq: int, data: bytes) -> bytes:
    """The bytes of one frame."""
    return _HEAD.pack(job_id.encode(), kind.encode(), token.encode(), seq, len(data)) + data


def pack_result(job_id: str, token: str, data: bytes, media_type: str) -> bytes:
    """The frame of a response body."""
    kind, data = result_data(data, media_type)
    return pack(job_id, kind, token, 0, data)


def result_data(data: bytes, media_type: str) -> tuple[FrameKind, bytes]:
    """Kind and data of the frame that carries a response body."""
    if media_type == JSON:
        return FrameKind.RESULT, data
    return FrameKind.TYPED, media_type.encode() + b"\n" + data


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
