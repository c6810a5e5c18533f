"""Pictures: `images/generations` and `images/edits`. The size of a request is in megapixel-steps."""

import re
from collections.abc import Iterator
from typing import Any

from inferq import errors
from inferq.config import ModelSettings
from inferq.endpoints.endpoint import Answer, Body, Endpoint, FileKind, FilePlace, Files
from inferq.endpoints.fields import ARRAY, BOOLEAN, INTEGER, NUMBER, OBJECT, STRING, Field, same, wrong_type
from inferq.endpoints.gateway import GATEWAY, MODEL

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_PIXELS = 512 * 512
"""Pixels of a picture whose size the caller left open."""
_STEPS = 20
MOST_UNITS = 16


def check_size(value: str, path: str) -> None:
    if value != "auto" and not _SIZE.fullmatch(value):
        raise errors.InvalidRequest(
            f"Invalid '{path}': {value!r}; write width x height, such as '512x512'.", param=path
        )


def _units(value: list[Any], path: str) -> None:
    if len(value) > MOST_UNITS:
        raise errors.InvalidRequest(f"Invalid '{path}': more than {MOST_UNITS} units.", param=path)
    for index, unit in enumerate(value):
        if not isinstance(unit, dict):
            raise wrong_type(f"{path}[{index}]", (OBJECT,), unit)


def _sources(value: Any, path: str) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            if not isinstance(item, str):
                raise wrong_type(f"{path}[{index}]", (STRING,), item)


_FILE = "A picture: an https URL, a `data:` URL, or `artifact:` with an artifact's id."

_PICTURE = {
    "model": MODEL,
    "prompt": Field(types=(STRING,), required=True, doc="What is to be seen."),
    "negative_prompt": Field(types=(STRING,), doc="What is not to be seen."),
    "n": Field(types=(INTEGER,), low=1, high=64, doc="How many pictures."),
    "batch_size": Field(types=(INTEGER,), low=1, high=64, doc="Another name of `n`."),
    "size": Field(types=(STRING,), doc="Width and height, such as `512x512`.", check=check_size),
    "width": Field(types=(INTEGER,), low=8, high=16384, doc="Width in pixels."),
    "height": Field(types=(INTEGER,), low=8, high=16384, doc="Height in pixels."),
    "steps": Field(types=(INTEGER,), low=1, high=1000, doc="Denoising steps."),
    "seed": Field(
        types=(INTEGER,),
        low=0,
        high=2**63 - 1,
        doc="The same seed makes the same picture. Picture i of several uses seed + i.",
    ),
    "guidance_scale": Field(types=(NUMBER,), low=0, high=100, doc="How closely the prompt is followed."),
    "scheduler": Field(types=(STRING,), doc="Name of the sampler, such as `euler`."),
    "response_format": Field(
        types=(STRING,),
        choices=("url", "b64_json"),
        doc="A link that expires, or the picture itself. Default `url`.",
    ),
    "output_format": Field(types=(STRING,), choices=("png", "jpeg", "webp"), doc="Default `png`."),
    "output_compression": Field(types=(INTEGER,), low=0, high=100, doc="Quality of `jpeg` and `webp`."),
    "stream": Field(types=(BOOLEAN,), doc="Answer as server-sent events, with pictures on the way."),
    "partial_images": Field(
        types=(INTEGER,), low=0, high=3, doc="How many pictures on the way, with `stream`."
    ),
    "denoise_strength": Field(
        types=(NUMBER,), low=0, high=1, doc="With a picture given: 0 keeps it, 1 paints a new one."
    ),
    "controlnet_units": Field(
        types=(ARRAY,),
        doc="ControlNets: `input_image`, `module` (how the picture is prepared), `model`, `weight`, "
        "`guidance_start`, `guidance_end`.",
        check=_units,
        schema={"items": {"type": "object"}},
    ),
    "user": Field(types=(STRING,), doc="A name for the end user; not used."),
    **GATEWAY,
}

GENERATION_TABLE = {
    **_PICTURE,
    "image_url": Field(types=(STRING,), doc=f"Start from this picture. {_FILE}"),
    "image": Field(types=(STRING,), doc="Another name of `image_url`."),
}

EDIT_TABLE = {
    **_PICTURE,
    "image": Field(types=(STRING, ARRAY), required=True, doc=_FILE, check=_sources),
    "mask": Field(types=(STRING,), doc="Where it is transparent (or white) the picture is painted anew."),
}


def _files(body: Body) -> Iterator[FilePlace]:
    for name in ("image_url", "image", "mask"):
        if isinstance(body.get(name), str):
            yield FilePlace(body, name, name, FileKind.IMAGE, bare=True)
        elif isinstance(body.get(name), list):
            _sources(body[name], name)
            for index in range(len(body[name])):
                yield FilePlace(body[name], index, f"{name}[{index}]", FileKind.IMAGE, bare=True)
    for index, unit in enumerate(body.get("controlnet_units") or ()):
        path = f"controlnet_units[{index}].input_image"
        if unit.get("input_image") is not None:
            if not isinstance(unit["input_image"], str):
                raise wrong_type(path, (STRING,), unit["input_image"])
            yield FilePlace(unit, "input_image", path, FileKind.IMAGE, bare=True)


def picture_size(body: Body, files: Files) -> tuple[int, int] | None:
    """Width and height: as asked, else those of the picture given, else open."""
    if body.get("width") and body.get("height"):
        return body["width"], body["height"]
    match = _SIZE.fullmatch(body.get("size") or "")
    if match:
        return int(match[1]), int(match[2])
    for name in ("image_url", "image", "image[0]"):
        facts = files.get(name)
        if facts and facts.width and facts.height:
            return facts.width, facts.height
    return None


def _count(body: Body) -> int:
    return int(same(body, "n", "batch_size") or 1)


def _work(body: Body, _model: ModelSettings, files: Files) -> float:
    size = picture_size(body, files)
    pixels = size[0] * size[1] if size else _PIXELS
    return max(0.001, _count(body) * (body.get("steps") or _STEPS) * pixels / 1e6)


def _admit(body: Body, model: ModelSettings, files: Files) -> None:
    limits, size = model.limits, picture_size(body, files)
    if size:
        limits.check("pixels", size[0] * size[1], "size", f"{size[0]}x{size[1]} has {{value:.0f}} pixels")
    limits.check("steps", body.get("steps"), "steps", "{value:.0f} steps were asked for")
    limits.check("images", _count(body), "n", "{value:.0f} pictures were asked for")


def _seeded(body: Body) -> bool:
    return body.get("seed") is not None and not body.get("stream")


_UPLOADS = dict.fromkeys(("image", "image_url", "mask"), FileKind.IMAGE)

GENERATIONS = Endpoint(
    path="images/generations",
    takes=("image",),
    table=GENERATION_TABLE,
    units=_work,
    admit=_admit,
    files=_files,
    uploads=_UPLOADS,
    answer=Answer.PICTURES,
    cached=_seeded,
)
EDITS = Endpoint(
    path="images/edits",
    takes=("image",),
    table=EDIT_TABLE,
    units=_work,
    admit=_admit,
    files=_files,
    uploads=_UPLOADS,
    answer=Answer.PICTURES,
    cached=_seeded,
)
