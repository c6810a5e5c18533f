"""What masks say, and putting painted pictures together with their originals.

Must not know what a picture is for.
"""

from __future__ import annotations

from PIL import Image, ImageChops

from workers.engines.failures import BadRequest

Picture = Image.Image


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
