"""Looking into a video file, with the engine's Python: the one of the tests needs no video library."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engines.process import engines_python

# Per frame: its place in time, and its colours at 8x8 points, so that films can be compared without their bytes.
LOOK = """
import json, sys
import av
with av.open(sys.argv[1]) as container:
    [stream] = container.streams
    frames = list(container.decode(video=0))
    json.dump({
        "codec": stream.codec_context.name, "pixels": stream.codec_context.pix_fmt, "fps": str(stream.average_rate),
        "seconds": float(stream.duration * stream.time_base), "size": [stream.width, stream.height],
        "times": [frame.time for frame in frames], "tags": dict(container.metadata),
        "colours": [frame.to_image().resize((8, 8)).tobytes().hex() for frame in frames],
    }, sys.stdout)
"""


@dataclass(frozen=True)
class Film:
    """One decoded file."""

    codec: str
    pixels: str
    fps: str
    seconds: float
    size: tuple[int, int]
    times: list[float]
    tags: dict[str, str]
    colours: list[bytes]


def decode(content: bytes, folder: Path) -> Film:
    path = folder / "film.mp4"
    path.write_bytes(content)
    done = subprocess.run([engines_python(), "-c", LOOK, str(path)], check=True, capture_output=True)
    seen: dict[str, Any] = json.loads(done.stdout)
    seen |= {"size": tuple(seen["size"]), "colours": [bytes.fromhex(each) for each in seen["colours"]]}
    return Film(**seen)


def unlike(one: bytes, other: bytes) -> float:
    """Mean difference of two frames' colours, 0 to 255."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def difference(one: Film, other: Film) -> float:
    pairs = zip(one.colours, other.colours, strict=True)
    return sum(unlike(left, right) for left, right in pairs) / len(one.colours)
