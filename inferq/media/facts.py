"""What is known of a file after it has been looked into. Pure."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["image", "audio", "video", "other"]


@dataclass(frozen=True, slots=True)
class Facts:
    """`kind` decides the rest: pictures and video have `width`, `height` (pixels) and `frames`; audio and video have
    `seconds`; audio, and video with sound, has `channels` and `sample_rate` (Hz). None: not there, or not known.

    `codec` is the picture's format or the codec of the first stream, video before sound. `animated` pictures have more
    than one frame. `error` says why nothing could be found out; then all else is at its default.
    """

    kind: Kind = "other"
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    seconds: float | None = None
    channels: int | None = None
    sample_rate: int | None = None
    codec: str | None = None
    animated: bool = False
    error: str | None = None
