"""Pictures as files, with the parameters they were made with inside.

The text has the form that the community's programs read: prompt, negative prompt, then `Name: value` pairs. It stands
in the PNG text chunk `parameters`, and in the EXIF field UserComment of JPEG and WebP.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image
from PIL.PngImagePlugin import PngInfo

CHUNK = "parameters"
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
UTF16_MARK = b"UNICODE\x00"
MOST_EXIF = 60_000  # bytes; one JPEG segment holds 65,533


@dataclass(frozen=True)
class Format:
    """`quality` is 0 to 100 and means something for JPEG and WebP only."""

    name: str = "png"
    quality: int = 95


def described(prompt: str, negative: str, facts: Mapping[str, object]) -> str:
    lines = [prompt, f"Negative prompt: {negative}"] if negative else [prompt]
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in facts.items())])


def encoded(picture: Image.Image, form: Format, parameters: str = "") -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    if form.name == "png":
        info = PngInfo()
        if parameters:
            info.add_text(CHUNK, parameters)
        picture.save(buffer, "PNG", pnginfo=info)
    else:
        exif = Image.Exif()
        if parameters:
            text = parameters.encode("utf-16-be", "replace")[:MOST_EXIF]
            exif.get_ifd(EXIF_IFD)[USER_COMMENT] = UTF16_MARK + text
        picture.save(buffer, form.name.upper(), quality=form.quality, exif=exif)
    return buffer.getvalue()
