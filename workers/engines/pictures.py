"""Reading the pictures that callers send: measured by their header before a pixel is decoded, then as plain RGB.

Formats are those that the gateway takes: what OpenAI names, GIF without animation, and BMP. Whatever a file does to the
decoder, the answer is a BadRequest that names its field. Must not know what a picture is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from inferq.media.facts import PICTURES
from workers.engines.failures import BadRequest

FORMATS = tuple(PICTURES)
MOVING = ("PNG", "WEBP", "GIF")  # a JPEG of several pictures is a camera's, and its first one is the picture
# Models scale the shorter side up; a thread of pixels would then fill the memory with its length.
MOST_ASPECT = 50


def read_picture(path: Path, param: str, max_pixels: int) -> Any:
    """The picture in a file as RGB, upright, on white where it was transparent. Raises BadRequest."""
    with decoding(param):
        return flatten(opened(path, param, max_pixels))


def open_picture(path: Path, param: str, max_pixels: int) -> Any:
    """The picture in a file, decoded and upright, with its transparency. Raises BadRequest."""
    with decoding(param):
        return opened(path, param, max_pixels)


@contextmanager
def decoding(param: str) -> Iterator[None]:
    """Work on a caller's picture. Decoders meet hostile bytes with whatever exception comes first."""
    try:
        yield
    except BadRequest:
        raise
    except Exception as error:
        raise BadRequest(
            f"'{param}' is no picture that can be read ({', '.join(FORMATS)}): {type(error).__name__}.",
            param=param,
        ) from error


def opened(path: Path, param: str, max_pixels: int) -> Any:
    with Image.open(path, formats=FORMATS) as image:
        check_header(image, param, max_pixels)
        image.load()
        return ImageOps.exif_transpose(image)


def check_header(image: Any, param: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadRequest(
            f"'{param}' has {width}x{height} pixels; at most {max_pixels} are read.", param=param
        )
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise BadRequest(f"'{param}' is {width}x{height}: too narrow, over 1 to {MOST_ASPECT}.", param=param)
    if image.format in MOVING and getattr(image, "is_animated", False):
        raise BadRequest(f"'{param}' is animated; one still picture is read.", param=param)


def flatten(image: Any) -> Any:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
