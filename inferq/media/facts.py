"""What is known of a file after it has been looked into, and which pictures are taken. Pure."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["image", "audio", "video", "other"]

PICTURES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
"""Media types of the pictures that the gateway takes and engines read, by Pillow's name of the format."""


@dataclass(frozen=True, slots=True)
class Facts:
    """`kind` decides the rest: pictures and video have `width`, `height` (pixels) and `frames`; audio and video have
    `seconds`; audio, and video with sound, has `channels`. None: not there, or not known.

    `error` says why nothing could be found out; then all else is at its default, but for `slow`: it took too long.
    """

    kind: Kind = "other"
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    seconds: float | None = None
    channels: int | None = None
    error: str | None = None
    slow: bool = False
