"""Frames into an MP4 file: H.264, yuv420p, the index in front, so that every player starts at once.

Must not know models. Sizes and rates are given; nothing is rounded here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from workers.engines.videogen.plan import Size, Timeline

BT709 = 1  # the number of this colour standard in H.264 (ITU-T H.273)
# With it, x264 makes files of small frames that differ from run to run (seen at 64x64); one seed shall give one file.
REPEATABLE = "mbtree=0"


@dataclass(frozen=True)
class Clip:
    """What a model made: `frames` of shape (count, height, width, 3), bytes, at `rate` frames per second."""

    frames: Any
    rate: float


def in_time(clip: Clip, timeline: Timeline, blend: bool) -> Iterator[Any]:
    """The frames of the file: mixed from their two neighbours in time, or the nearer one."""
    frames = clip.frames
    for before, way in timeline.sources(len(frames), clip.rate):
        after = min(before + 1, len(frames) - 1)
        if way == 0 or after == before:
            yield frames[before]
        elif blend:
            mixed = frames[before] * np.float32(1 - way) + frames[after] * np.float32(way)
            yield np.rint(mixed).astype(np.uint8)
        else:
            yield frames[after if way >= 0.5 else before]


def encode(
    frames: Iterator[Any],
    timeline: Timeline,
    size: Size,
    quality: int,
    tags: Mapping[str, str],
    go_on: Callable[[], None],
) -> bytes:
    """The file. `quality` is x264's constant rate factor; `go_on` is called before each frame and may raise."""
    # libavformat moves the index to the front by reading the file again, which it cannot do in memory.
    with tempfile.TemporaryDirectory(prefix="inferq-video-") as folder:
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            container.metadata.update(tags)
            stream = add_stream(container, timeline, size, quality)
            for array in frames:
                go_on()
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
                container.mux(stream.encode(to_yuv(picture, size)))
            container.mux(stream.encode())
        return path.read_bytes()


def add_stream(container: Any, timeline: Timeline, size: Size, quality: int) -> Any:
    options = {"crf": str(quality), "x264-params": REPEATABLE}
    stream = container.add_stream("libx264", rate=timeline.rate, options=options)
    stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
    context = stream.codec_context
    # Untagged, a player guesses the colour standard by the size, and guesses differently from the next one.
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG
    return stream


def to_yuv(picture: Any, size: Size) -> Any:
    return picture.reformat(
        width=size.width,
        height=size.height,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.LANCZOS,
    )
