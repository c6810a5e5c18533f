"""Reads the body of a video request into one frozen `VideoAsk`, and refuses what cannot be made.

All limits are checked here, before a request waits for its turn. Must not run anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.fields import Fields, check_range, wrong_type
from workers.engines.videogen.plan import TOLERANCE, Canvas, Rhythm, Size, Timeline, distance

SHORTEST_S = 0.1
MOST_GUIDANCE = 30.0
MOST_LETTERS = 20_000
SEEDS = 2**63 - 1
HEIGHT = re.compile(r"([1-9]\d{0,4})[pP]")
SIDES = re.compile(r"([1-9]\d{0,4})[xX×*]([1-9]\d{0,4})")


@dataclass(frozen=True)
class Limits:
    """What this engine makes at most, and what it makes when nothing is asked."""

    canvas: Canvas
    rhythm: Rhythm
    max_duration: float
    max_fps: float
    max_steps: int
    steps: int
    guidance: float
    from_picture: bool


@dataclass(frozen=True)
class VideoAsk:
    """One video: what to show, what to make, and what the file looks like."""

    prompt: str
    negative: str | None
    size: Size
    made_size: Size
    frames: int
    timeline: Timeline
    steps: int
    guidance: float
    seed: int | None
    picture: Any


def read_video(fields: Fields, limits: Limits) -> VideoAsk:
    prompt = read_text(fields, "prompt")
    if not prompt:
        raise BadRequest("'prompt' must be a non-empty string.", param="prompt")
    negative = read_text(fields, "negative_prompt")
    size = read_size(fields, limits.canvas)
    frames, timeline = read_time(fields, limits)
    guidance = fields.number("guidance_scale", 0, MOST_GUIDANCE)
    guidance = limits.guidance if guidance is None else guidance
    if negative and guidance <= 1:
        raise BadRequest(
            "'negative_prompt' has no effect unless 'guidance_scale' is above 1.", param="negative_prompt"
        )
    steps = fields.integer(either(fields, "steps", "num_inference_steps"), 1, limits.max_steps)
    ask = VideoAsk(
        prompt=prompt,
        negative=negative,
        size=size,
        made_size=limits.canvas.nearest(size),
        frames=frames,
        timeline=timeline,
        steps=steps or limits.steps,
        guidance=guidance,
        seed=fields.integer("seed", 0, SEEDS),
        picture=read_picture_url(fields, limits.from_picture),
    )
    fields.only("n", (1,), "one request makes one video")
    fields.only("response_format", ("mp4",), "the answer is an MP4 file")
    fields.close()
    return ask


def either(fields: Fields, name: str, alias: str) -> str:
    """Which of two names for one thing was used; both is an error."""
    if fields.given(name) and fields.given(alias):
        raise BadRequest(f"'{name}' and '{alias}' mean the same; give one.", param=alias)
    return alias if fields.given(alias) else name


def read_text(fields: Fields, name: str) -> str | None:
    text = fields.text(name)
    if text is not None and len(text) > MOST_LETTERS:
        raise BadRequest(f"'{name}' is longer than {MOST_LETTERS} characters.", param=name)
    return text.strip() if text is not None else None


def read_picture_url(fields: Fields, wanted: bool) -> Any:
    picture = fields.raw("image_url")
    if wanted and picture is None:
        raise BadRequest("This model starts from a picture: 'image_url' is required.", param="image_url")
    if not wanted and picture is not None:
        raise UnsupportedParameter("image_url", "this model makes videos from text only")
    return picture


def read_seconds(fields: Fields, name: str, low: float, high: float) -> float | None:
    """A number, which OpenAI's clients send as a string."""
    value = fields.raw(name)
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            raise wrong_type(name, "a number of seconds") from None
        check_range(name, number, low, high)
        return number
    return fields.number(name, low, high)


def read_time(fields: Fields, limits: Limits) -> tuple[int, Timeline]:
    """How many frames to make, and the frames of the file."""
    rhythm = limits.rhythm
    name = either(fields, "duration", "seconds")
    duration = read_seconds(fields, name, SHORTEST_S, limits.max_duration)
    fps = fields.number("fps", 1, limits.max_fps) or rhythm.rate
    if duration is None:
        duration = min(rhythm.longest / rhythm.rate, limits.max_duration)
    frames = rhythm.needed(duration)
    if frames > rhythm.most:
        longest = rhythm.longest / rhythm.rate
        raise BadRequest(
            f"{duration:g} seconds need {frames} frames of the model; it makes at most {rhythm.longest}, which are"
            f" {longest:g} seconds.",
            param=name,
        )
    return frames, Timeline.of(duration, fps)


def read_size(fields: Fields, canvas: Canvas) -> Size:
    """The size of the file, by one of three ways: 1 a name, 2 width and height, 3 the model's own."""
    name = either(fields, "resolution", "size")
    text, width, height = fields.text(name), fields.integer("width", 1), fields.integer("height", 1)
    if text is not None:  # 1
        if width is not None or height is not None:
            raise BadRequest(f"'{name}' and 'width', 'height' mean the same; give one.", param=name)
        return check_size(parse_size(text, name, canvas), name, canvas)
    if width is not None and height is not None:  # 2
        return check_size(Size(width, height), "width", canvas)
    if width is not None or height is not None:
        raise BadRequest("'width' and 'height' go together.", param="height" if height is None else "width")
    return canvas.native  # 3


def parse_size(text: str, name: str, canvas: Canvas) -> Size:
    if sides := SIDES.fullmatch(text):
        return Size(int(sides[1]), int(sides[2]))
    if height := HEIGHT.fullmatch(text):
        return canvas.of_height(int(height[1]))
    raise BadRequest(f"'{name}' must be like '{canvas.native}' or '{canvas.native.height}p'.", param=name)


def check_size(wanted: Size, name: str, canvas: Canvas) -> Size:
    made = canvas.nearest(wanted)
    near = ", ".join(str(size) for size in canvas.neighbours(wanted)[:2])
    if max(wanted.pixels, made.pixels) > canvas.most:
        raise BadRequest(
            f"{wanted} is over the limit of {canvas.most} pixels per frame; the model's own size is {canvas.native}.",
            param=name,
        )
    if distance(made, wanted) >= TOLERANCE:
        raise BadRequest(f"The model cannot make {wanted}; the nearest sizes are {near}.", param=name)
    if wanted.width % 2 or wanted.height % 2:
        raise BadRequest(f"The sides of a video must be even; near {wanted} are {near}.", param=name)
    return wanted
