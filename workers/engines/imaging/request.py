"""The bodies of `images/generations` and `images/edits`, read and checked as far as that needs no picture.

Must not know pipelines: what a model can do comes in as `Abilities`.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.fields import Fields
from workers.engines.image_api import MOST_PREVIEWS, MOST_SEED, harmless, output_of, size_of
from workers.engines.imaging import schedulers
from workers.engines.imaging.control import Unit, read_units
from workers.engines.imaging.encode import Format
from workers.engines.media import local_path

GENERATIONS, EDITS = "generations", "edits"
MOST_PROMPT = 32_000  # characters, as OpenAI has it


@dataclass(frozen=True)
class Limits:
    """What one request may ask for. Pixels are width times height of one picture."""

    pixels: int
    input_pixels: int
    side: int
    steps: int
    images: int
    units: int


@dataclass(frozen=True)
class Defaults:
    """What a request gets that does not say."""

    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str | None


@dataclass(frozen=True)
class Abilities:
    """What the loaded model can do. Sizes are multiples of `multiple`."""

    pictures: bool
    masks: bool
    controlnets: Collection[str]
    schedulers: Collection[str]
    multiple: int
    takes: Collection[str]
    clip_skip: int


@dataclass(frozen=True)
class Ask:
    """One request. Width and height are 0 where the picture to start from decides."""

    prompt: str
    negative: str
    count: int
    width: int
    height: int
    steps: int
    guidance: float
    true_guidance: float | None
    scheduler: str | None
    clip_skip: int
    strength: float
    seed: int
    source: Path | None
    source_param: str
    mask: Path | None
    units: tuple[Unit, ...]
    form: Format
    stream: bool
    previews: int


class Reader:
    """Reads one body with the limits, defaults and abilities of one engine."""

    def __init__(self, limits: Limits, defaults: Defaults, able: Abilities, media: str | None) -> None:
        self.limits, self.defaults, self.able, self.media = limits, defaults, able, media

    def read(self, fields: Fields, endpoint: str) -> Ask:
        """Raises BadRequest. Every field that is not read here is refused."""
        source, param = self.source(fields, endpoint)
        mask = self.mask(fields) if endpoint == EDITS else None
        width, height = self.size(fields, sized_by_picture=source is not None)
        stream = fields.flag("stream")
        previews = fields.integer("partial_images", 0, MOST_PREVIEWS) or 0
        steps = alias(
            fields.integer("steps", 1), fields.integer("num_inference_steps", 1), "num_inference_steps"
        )
        guidance = alias(
            fields.number("guidance_scale", 0, 100), fields.number("cfg_scale", 0, 100), "cfg_scale"
        )
        harmless(fields)
        true_guidance = self.true_guidance(fields)
        ask = Ask(
            prompt=prompt(fields),
            negative=self.negative(fields, true_guidance),
            count=self.count(fields),
            width=width,
            height=height,
            steps=at_most(self.defaults.steps if steps is None else int(steps), self.limits.steps, "steps"),
            guidance=self.defaults.guidance if guidance is None else guidance,
            true_guidance=true_guidance,
            scheduler=self.scheduler(fields),
            clip_skip=self.clip_skip(fields),
            strength=self.strength(fields, source is not None, mask is not None),
            seed=seed(fields),
            source=source,
            source_param=param,
            mask=mask,
            units=self.units(fields),
            form=output(fields),
            stream=stream,
            previews=previews,
        )
        fields.close()
        return ask

    def source(self, fields: Fields, endpoint: str) -> tuple[Path | None, str]:
        """The picture to start from, and the name of its field."""
        name = "image_url" if endpoint == GENERATIONS and fields.given("image_url") else "image"
        value: Any = fields.raw(name)
        if endpoint == EDITS and isinstance(value, list):
            if len(value) != 1:
                raise BadRequest("'image' must be exactly one picture.", param="image")
            value = value[0]
        if value is None:
            if endpoint == EDITS:
                raise BadRequest("'image' is required.", param="image")
            return None, name
        if not self.able.pictures:
            raise UnsupportedParameter(name, "this model cannot start from a picture")
        return local_path(value, name, self.media), name

    def mask(self, fields: Fields) -> Path | None:
        value = fields.raw("mask")
        if value is None:
            return None
        if not self.able.masks:
            raise UnsupportedParameter("mask", "this model cannot repaint a part")
        return local_path(value, "mask", self.media)

    def size(self, fields: Fields, *, sized_by_picture: bool) -> tuple[int, int]:
        width, height = fields.integer("width", 1), fields.integer("height", 1)
        asked = size_of(fields)
        if asked is not None:
            if width not in (None, asked[0]) or height not in (None, asked[1]):
                raise BadRequest("'size' contradicts 'width' and 'height'.", param="size")
            width, height = asked
        if width is None and height is None and sized_by_picture:
            return 0, 0
        if sized_by_picture and (width is None or height is None):
            raise BadRequest(
                "Give both 'width' and 'height', or neither.", param="height" if height is None else "width"
            )
        sides = (width or self.defaults.width, height or self.defaults.height)
        self.check_size(*sides, param="size" if asked else None)
        return sides

    def check_size(self, width: int, height: int, param: str | None) -> None:
        for name, side in (("width", width), ("height", height)):
            if side % self.able.multiple or not self.able.multiple <= side <= self.limits.side:
                raise BadRequest(
                    f"Invalid {name} {side}: sides are multiples of {self.able.multiple} up to {self.limits.side}.",
                    param=param or name,
                )
        if width * height > self.limits.pixels:
            raise BadRequest(
                f"{width}x{height} is more than the {self.limits.pixels} pixels allowed here.",
                param=param or "width",
            )

    def count(self, fields: Fields) -> int:
        found = alias(fields.integer("n", 1), fields.integer("batch_size", 1), "batch_size")
        return at_most(1 if found is None else int(found), self.limits.images, "n")

    def scheduler(self, fields: Fields) -> str | None:
        given = fields.text("scheduler")
        if given is None:
            return self.defaults.scheduler
        name = schedulers.plain(given)
        if name not in self.able.schedulers:
            known = ", ".join(self.able.schedulers)
            raise BadRequest(
                f"Unknown scheduler '{given}' for this model. Known: {known}.", param="scheduler"
            )
        return name

    def clip_skip(self, fields: Fields) -> int:
        if fields.given("clip_skip") and not self.able.clip_skip:
            raise UnsupportedParameter("clip_skip", "this model has no such text encoder")
        return fields.integer("clip_skip", 0, self.able.clip_skip) or 0

    def true_guidance(self, fields: Fields) -> float | None:
        """Guidance by two passes, of models whose `guidance_scale` is an input they were trained with."""
        return fields.number("true_cfg_scale", 0, 100) if "true_cfg_scale" in self.able.takes else None

    def negative(self, fields: Fields, true_guidance: float | None) -> str:
        text = limited(fields.text("negative_prompt") or "", "negative_prompt")
        if text and "negative_prompt" not in self.able.takes:
            raise UnsupportedParameter("negative_prompt", "this model has none")
        if text and "true_cfg_scale" in self.able.takes and (true_guidance or 0) <= 1:
            raise UnsupportedParameter("negative_prompt", "this model needs 'true_cfg_scale' above 1 for it")
        return text

    def strength(self, fields: Fields, has_source: bool, has_mask: bool) -> float:
        name = (
            "strength"
            if fields.given("strength") and not fields.given("denoise_strength")
            else "denoise_strength"
        )
        found = alias(fields.number("denoise_strength", 0, 1), fields.number("strength", 0, 1), "strength")
        if found is not None and not has_source:
            raise BadRequest(f"'{name}' needs a picture to start from.", param=name)
        if found is None:
            return 1.0 if has_mask or not has_source else 0.75
        return found

    def units(self, fields: Fields) -> tuple[Unit, ...]:
        given = fields.listing("controlnet_units")
        return read_units(given, self.able.controlnets, self.limits.units, self.media)


def alias(value: float | None, other: float | None, name: str) -> float | None:
    """One value of two fields with one meaning. Raises BadRequest where they differ."""
    if value is not None and other is not None and value != other:
        raise BadRequest(f"'{name}' contradicts its synonym.", param=name)
    return other if value is None else value


def at_most(value: int, most: int, param: str) -> int:
    if value > most:
        raise BadRequest(f"Invalid value for '{param}': {value} is more than {most}.", param=param)
    return value


def limited(text: str, param: str) -> str:
    if len(text) > MOST_PROMPT:
        raise BadRequest(f"'{param}' is longer than {MOST_PROMPT} characters.", param=param)
    return text


def prompt(fields: Fields) -> str:
    text = fields.text("prompt")
    if text is None or not text.strip():
        raise BadRequest("'prompt' must be a text that is not empty.", param="prompt")
    return limited(text, "prompt")


def seed(fields: Fields) -> int:
    """The first picture's seed. None or -1 asks for any."""
    given = fields.integer("seed", -1, MOST_SEED)
    return secrets.randbelow(2**32) if given is None or given < 0 else given


def output(fields: Fields) -> Format:
    name, quality = output_of(fields)
    return Format(name or "png", Format.quality if quality is None else quality)
