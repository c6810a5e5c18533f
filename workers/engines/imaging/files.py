"""Opening the pictures that a request names. What cannot be read, or would be too large once unpacked, is refused.

Must not know what a picture is for.
"""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import Image, ImageChops, ImageOps

from workers.engines.failures import BadRequest

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
)
Picture = Image.Image


def opened(path: Path, param: str, most_pixels: int) -> Picture:
    """The first picture of a file, upright. Raises BadRequest; the size is checked before anything is unpacked."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > most_pixels:
                raise BadRequest(
                    f"'{param}' has {picture.width}x{picture.height} pixels; at most {most_pixels} are read.",
                    param=param,
                )
            picture.load()
            return ImageOps.exif_transpose(picture)
    except BROKEN as error:
        raise BadRequest(
            f"'{param}' is not a picture that can be read ({', '.join(FORMATS)}): {error}.", param=param
        ) from error


def colours(picture: Picture) -> Picture:
    """As RGB; what is transparent shows white."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def repainted(mask: Picture, param: str) -> Picture:
    """Black and white (mode L), white where the mask asks to repaint.

    That is where a mask is fully transparent, as OpenAI has it. A mask without transparency is read as the
    usual drawing: white is repainted.
    """
    if mask.has_transparency_data:
        alpha = mask.convert("RGBA").getchannel("A")
        found = alpha.point([255] + [0] * 255)
        if alpha.getextrema() != (255, 255):
            return wanted(found, param)
    return wanted(mask.convert("L").point([0] * 128 + [255] * 128), param)


def wanted(mask: Picture, param: str) -> Picture:
    if mask.getextrema() == (0, 0):
        raise BadRequest(f"'{param}' leaves nothing to repaint.", param=param)
    return mask


def merged(painted: Picture, original: Picture, mask: Picture) -> Picture:
    """The original with the painted picture where the mask is white; exact outside."""
    return Image.composite(painted, original, mask)


def inverted(picture: Picture) -> Picture:
    return ImageChops.invert(picture)
