"""ControlNet units of a request, and the preprocessors that turn a picture into what a ControlNet reads.

`canny` and the arithmetic ones are here; the others are models of the optional package `controlnet_aux`. Must not know
pipelines.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.fields import Fields
from workers.engines.imaging import masks
from workers.engines.media import local_path
from workers.engines.pictures import read_picture

Picture = Image.Image

# Names of `module` that need the optional package -> its own names.
LEARNT: Mapping[str, str] = {
    "depth": "depth_midas",
    "depth_leres": "depth_leres",
    "depth_midas": "depth_midas",
    "depth_zoe": "depth_zoe",
    "hed": "softedge_hed",
    "lineart": "lineart_realistic",
    "lineart_anime": "lineart_anime",
    "mlsd": "mlsd",
    "normal": "normal_bae",
    "normal_bae": "normal_bae",
    "openpose": "openpose",
    "openpose_full": "openpose_full",
    "pidinet": "softedge_pidinet",
    "scribble": "scribble_hed",
    "softedge": "softedge_hed",
}


@dataclass(frozen=True)
class Control:
    """What ControlNets of one run have in common with those of another that may share it."""

    model: str
    weight: float
    start: float
    end: float


@dataclass(frozen=True)
class Unit:
    """One unit as it was asked for. `low` and `high` are the preprocessor's thresholds, 0 to 255."""

    control: Control
    path: Path
    param: str
    module: str
    low: float
    high: float
    resolution: int

    @property
    def resolution_param(self) -> str:
        return f"{self.param.rpartition('.')[0]}.processor_res"


def read_units(
    given: list[Any] | None, known: Collection[str], most: int, media: str | None
) -> tuple[Unit, ...]:
    """The enabled units of a request. Raises BadRequest with the path of the wrong field."""
    if not given:
        return ()
    if len(given) > most:
        raise BadRequest(f"'controlnet_units' may hold at most {most} units.", param="controlnet_units")
    units = []
    for place, value in enumerate(given):
        where = f"controlnet_units[{place}]"
        try:
            unit = read_unit(Fields(value), where, known, media)
        except BadRequest as error:
            error.param = f"{where}.{error.param}" if error.param else where
            raise
        if unit is not None:
            units.append(unit)
    return tuple(units)


def read_unit(fields: Fields, where: str, known: Collection[str], media: str | None) -> Unit | None:
    enabled = fields.flag("enabled", default=True)
    name = "image" if fields.given("image") and not fields.given("input_image") else "input_image"
    path = local_path(fields.raw(name), name, media)
    model = fields.text("model") or ""
    module = (fields.text("module") or "none").lower()
    weight = fields.number("weight", 0, 2)
    start = fields.number("guidance_start", 0, 1) or 0.0
    end = fields.number("guidance_end", 0, 1)
    low = one_of(fields, "low_threshold", "threshold_a")
    high = one_of(fields, "high_threshold", "threshold_b")
    resolution = fields.integer("processor_res", 8, 4096) or 0
    fields.only("resize_mode", ("Just Resize", "just_resize", 0), "pictures are resized to the asked size")
    fields.only("control_mode", ("Balanced", "balanced", 0), "only balanced control is supported")
    fields.only("pixel_perfect", (True, False), "expected a boolean")
    fields.only("lowvram", (False,), "memory is the operator's business")
    fields.close()
    if model not in known:
        names = ", ".join(sorted(known)) or "none"
        raise BadRequest(f"Unknown ControlNet '{model}'. Known here: {names}.", param="model")
    check_module(module)
    end = 1.0 if end is None else end
    if start >= end:
        raise BadRequest("'guidance_start' must be less than 'guidance_end'.", param="guidance_start")
    if low is not None and high is not None and low > high:
        raise BadRequest("'low_threshold' must not be above 'high_threshold'.", param="low_threshold")
    control = Control(model, 1.0 if weight is None else weight, start, end)
    thresholds = (100.0 if low is None else low, 200.0 if high is None else high)
    unit = Unit(control, path, f"{where}.{name}", module, *thresholds, resolution)
    return unit if enabled else None


def one_of(fields: Fields, name: str, alias: str) -> float | None:
    value, other = fields.number(name, 0, 255), fields.number(alias, 0, 255)
    if value is not None and other is not None and value != other:
        raise BadRequest(f"'{name}' and '{alias}' mean the same and differ.", param=alias)
    return other if value is None else value


def check_module(module: str) -> None:
    """Raises BadRequest for a preprocessor that does not exist, UnsupportedParameter for one that is not installed."""
    if module in PLAIN:
        return
    if module not in LEARNT:
        raise BadRequest(
            f"Unknown module '{module}'. Known: {', '.join(sorted({*PLAIN, *LEARNT}))}.", param="module"
        )
    try:
        importlib.import_module("controlnet_aux")
    except ImportError as error:
        raise UnsupportedParameter(
            "module", f"'{module}' needs the package controlnet_aux, which is not installed here"
        ) from error


def hint(unit: Unit, width: int, height: int, most_pixels: int) -> Picture:
    """What the unit's ControlNet reads: RGB of exactly this size. No picture on the way has more than `most_pixels`."""
    picture = read_picture(unit.path, unit.param, most_pixels)
    if unit.module in LEARNT:
        made: Picture = learnt(LEARNT[unit.module])(picture, to_pil=True).convert("RGB")
    else:
        made = PLAIN[unit.module](picture, unit, min(width, height), most_pixels)
    return made.resize(
        (width, height), Image.Resampling.LANCZOS if unit.module == "none" else Image.Resampling.BOX
    )


@cache
def learnt(name: str) -> Any:
    return importlib.import_module("controlnet_aux").Processor(name)


def as_it_is(picture: Picture, unit: Unit, side: int, most: int) -> Picture:
    return picture


def canny(picture: Picture, unit: Unit, side: int, most: int) -> Picture:
    """Edges, white on black, found at the resolution asked for, else at that of the result."""
    cv2: Any = importlib.import_module("cv2")
    small = short_side(picture, unit, unit.resolution or side, most)
    return Image.fromarray(cv2.Canny(np.asarray(small), unit.low, unit.high)).convert("RGB")


def threshold(picture: Picture, unit: Unit, side: int, most: int) -> Picture:
    """Black and white, divided at `low_threshold`."""
    return picture.convert("L").point([255 if value > unit.low else 0 for value in range(256)]).convert("RGB")


def invert(picture: Picture, unit: Unit, side: int, most: int) -> Picture:
    return masks.inverted(picture)


def tile(picture: Picture, unit: Unit, side: int, most: int) -> Picture:
    """The colours without the detail: an eighth of the resolution asked for, else of the result's."""
    small = short_side(picture, unit, max(1, (unit.resolution or side) // 8), most)
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def short_side(picture: Picture, unit: Unit, side: int, most: int) -> Picture:
    """The picture with a shorter side of `side`. Raises BadRequest where its longer one would make it too large."""
    scale = side / min(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if size[0] * size[1] > most:
        raise BadRequest(
            f"Module '{unit.module}' would work on {size[0]}x{size[1]} pixels of '{unit.param}'; at most {most} are "
            "allowed: give a smaller 'processor_res', or a picture less long.",
            param=unit.resolution_param,
        )
    return picture.resize(size, Image.Resampling.LANCZOS)


PLAIN: Mapping[str, Callable[[Picture, Unit, int, int], Picture]] = {
    "none": as_it_is,
    "canny": canny,
    "invert": invert,
    "threshold": threshold,
    "tile": tile,
}
