"""Pictures for tests, written by hand: the tests' environment needs no picture library."""

import struct
import zlib
from pathlib import Path

Colour = tuple[int, int, int]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, rows: bytes, kind: int = 2) -> bytes:
    """A PNG of given scan lines; `kind` 2 is RGB, 0 is grey."""
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def plain(colour: Colour, width: int = 64, height: int = 64) -> bytes:
    """A picture of one colour."""
    return png(width, height, (b"\0" + bytes(colour) * width) * height)


def gif(frames: int) -> bytes:
    """A GIF of many 1x1 frames."""
    one = b"\x21\xf9\x04\0\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0"
    return b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff" + one * frames + b";"


def hostile() -> dict[str, bytes]:
    """Files that are no honest picture, by what is wrong with them."""
    whole = plain((200, 10, 10))
    return {
        "empty": b"",
        "text": b"this is no picture",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "head only": whole[:40],
        "truncated": whole[: len(whole) - 30],
        "wrong checksum": whole[:30] + b"\xff\xff" + whole[32:],
        # 30,000 x 30,000 grey zeros: 900 MB from a file of 4 MB; only the head is needed to say so.
        "bomb": png(30_000, 30_000, b"", 0),
        "no pixels": png(0, 0, b""),
        "huge sides": png(2**31 - 1, 2**31 - 1, b""),
        "thread": plain((0, 0, 0), 6000, 1),
        "gif of many frames": gif(100_000),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nquit\n",
    }


def shelve(folder: Path, name: str, content: bytes) -> str:
    """Put a file into the media folder; gives its URL."""
    path = folder / name.replace(" ", "_")
    path.write_bytes(content)
    return path.as_uri()
