"""What a file is, by how it begins. For the replica and the engines alike; must not import either."""

from __future__ import annotations

# How files of a type begin: (offset, bytes, media type, ending of the name).
SIGNS = (
    (0, b"\x89PNG", "image/png", "png"),
    (0, b"\xff\xd8\xff", "image/jpeg", "jpg"),
    (0, b"GIF8", "image/gif", "gif"),
    (8, b"WEBP", "image/webp", "webp"),
    (8, b"WAVE", "audio/wav", "wav"),
    (0, b"fLaC", "audio/flac", "flac"),
    (0, b"OggS", "audio/ogg", "ogg"),
    (0, b"ID3", "audio/mpeg", "mp3"),
    (0, b"\xff\xfb", "audio/mpeg", "mp3"),
    (0, b"\xff\xf3", "audio/mpeg", "mp3"),
    (0, b"\x1aE\xdf\xa3", "video/webm", "webm"),
    (4, b"ftypM4A", "audio/mp4", "m4a"),
    (4, b"ftyp", "video/mp4", "mp4"),
)


def recognised(content: bytes) -> tuple[str, str] | None:
    """The media type and the ending of a name; None for a file that begins like none of these."""
    for offset, sign, media, ending in SIGNS:
        if content.startswith(sign, offset):
            return media, ending
    return None
