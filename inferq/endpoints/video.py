"""Video: `video/generations`, always a long job. The size of a request is in megapixel-frames times steps."""

import re
from collections.abc import Iterator
from typing import Any

from inferq import errors
from inferq.config import ModelSettings
from inferq.endpoints.endpoint import Answer, Body, Endpoint, FileKind, FilePlace, Files
from inferq.endpoints.fields import INTEGER, NUMBER, STRING, Field, number_of
from inferq.endpoints.gateway import GATEWAY, MODEL

_RESOLUTION = re.compile(r"[1-9][0-9]{0,4}(?:p|x[1-9][0-9]{0,4})")
_SECONDS, _FPS, _STEPS, _PIXELS = 6.0, 8.0, 50, 720 * 480
"""What a request that leaves them open is taken to ask for, to guess its size."""


def _resolution(value: str, path: str) -> None:
    if not _RESOLUTION.fullmatch(value):
        raise errors.InvalidRequest(
            f"Invalid '{path}': {value!r}; write a height such as '720p' or a size such as '720x480'.",
            param=path,
        )


def _seconds(value: Any, path: str) -> None:
    if not number_of(value) or not 0 < float(value) <= 3600:
        raise errors.InvalidRequest(
            f"Invalid '{path}': {value!r} is no number of seconds up to 3600.", param=path
        )


TABLE = {
    "model": MODEL,
    "prompt": Field(types=(STRING,), required=True, doc="What is to be seen."),
    "negative_prompt": Field(types=(STRING,), doc="What is not to be seen."),
    "duration": Field(types=(NUMBER, STRING), doc="Length in seconds.", check=_seconds),
    "seconds": Field(types=(NUMBER, STRING), doc="OpenAI's name of `duration`.", check=_seconds),
    "fps": Field(types=(NUMBER,), low=1, high=120, doc="Frames per second of the file."),
    "resolution": Field(types=(STRING,), doc="`720p`, or width x height.", check=_resolution),
    "size": Field(types=(STRING,), doc="OpenAI's name of `resolution`.", check=_resolution),
    "width": Field(types=(INTEGER,), low=8, high=16384, doc="Width in pixels."),
    "height": Field(types=(INTEGER,), low=8, high=16384, doc="Height in pixels."),
    "steps": Field(types=(INTEGER,), low=1, high=1000, doc="Denoising steps."),
    "seed": Field(types=(INTEGER,), low=0, high=2**63 - 1, doc="The same seed makes the same video."),
    "guidance_scale": Field(types=(NUMBER,), low=0, high=100, doc="How closely the prompt is followed."),
    "image_url": Field(types=(STRING,), doc="First picture, for models that can start from one."),
    "n": Field(types=(INTEGER,), low=1, high=1, doc="One video per request."),
    "user": Field(types=(STRING,), doc="A name for the end user; not used."),
    **GATEWAY,
}


def _files(body: Body) -> Iterator[FilePlace]:
    if body.get("image_url") is not None:
        yield FilePlace(body, "image_url", "image_url", FileKind.IMAGE, bare=True)


def _length(body: Body) -> float | None:
    value = body.get("duration") if body.get("duration") is not None else body.get("seconds")
    return None if value is None else float(value)


def _pixels(body: Body) -> int | None:
    """Pixels of a frame, where the request says both sides."""
    text = body.get("resolution") or body.get("size") or f"{body.get('width')}x{body.get('height')}"
    width, _, height = text.partition("x")
    return int(width) * int(height) if width.isdigit() and height.isdigit() else None


def _work(body: Body, _model: ModelSettings, _files: Files) -> float:
    frames = (_length(body) or _SECONDS) * _FPS
    return max(0.001, frames * (_pixels(body) or _PIXELS) / 1e6 * (body.get("steps") or _STEPS))


def _admit(body: Body, model: ModelSettings, _files: Files) -> None:
    limits = model.limits
    limits.check("duration", _length(body), "duration", "{value:g} s were asked for")
    named = next((name for name in ("resolution", "size") if body.get(name)), "width")
    limits.check("pixels", _pixels(body), named, "a frame has {value:.0f} pixels")
    limits.check("steps", body.get("steps"), "steps", "{value:.0f} steps were asked for")
    limits.check("fps", body.get("fps"), "fps", "{value:g} frames per second were asked for")


VIDEO = Endpoint(
    path="video/generations",
    takes=("video",),
    table=TABLE,
    units=_work,
    admit=_admit,
    files=_files,
    uploads={"image_url": FileKind.IMAGE, "input_reference": FileKind.IMAGE},
    answer=Answer.FILE,
    long=True,
)
