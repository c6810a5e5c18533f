"""Pictures on their way to the server and back.

To it: what a caller sent is decoded once before it leaves, so that a broken file is his error and not the server's.
From it: as the workflow wrote them, unless another format was asked for. Must not know requests or the server.
"""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

from workers.engines.comfy.request import Form
from workers.engines.comfy.workflow import MASK
from workers.engines.failures import BadRequest, EngineFault
from workers.engines.pictures import decoding, open_picture

MEDIA = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif"}
PNG_SIGN = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
QUALITY = 95


@dataclass(frozen=True)
class Sent:
    """A picture for the server. Its name is made of its content, so that the same picture is stored once."""

    content: bytes
    name: str
    media: str


@dataclass(frozen=True)
class Shown:
    """A picture for the caller; `form` is png, jpeg, webp or gif."""

    content: bytes
    form: str
    width: int
    height: int
    opaque: bool


def sendable(path: Path, param: str, kind: str, max_pixels: int) -> Sent:
    """Raises BadRequest for what is no picture that can be read."""
    picture = open_picture(path, param, max_pixels)
    if kind == MASK:
        with decoding(param):
            return sent(repaint(picture, param), "PNG")
    with Image.open(path) as header:
        return sent(path.read_bytes(), str(header.format))


def sent(content: bytes, form: str) -> Sent:
    return Sent(content, f"{hashlib.sha256(content).hexdigest()[:40]}.{ENDINGS[form]}", MEDIA[form])


def repaint(mask: Image.Image, param: str) -> bytes:
    """A mask that every loader of ComfyUI reads alike: transparent and white where the picture is painted anew.

    That is where a mask is transparent, as OpenAI has it; a mask without transparency is a drawing with white there.
    """
    alpha = mask.convert("RGBA").getchannel("A")
    chosen = mask.convert("L") if alpha.getextrema() == (255, 255) else ImageChops.invert(alpha)
    if chosen.getextrema() == (0, 0):
        raise BadRequest(f"'{param}' leaves nothing to repaint.", param=param)
    buffer = io.BytesIO()
    Image.merge("RGBA", (chosen, chosen, chosen, ImageChops.invert(chosen))).save(buffer, "PNG")
    return buffer.getvalue()


def shown(content: bytes, form: Form, *, keep_metadata: bool = False) -> Shown:
    """A picture of the server in the form that was asked for. Raises EngineFault for what is no picture."""
    try:
        with Image.open(io.BytesIO(content), formats=tuple(MEDIA)) as picture:
            came = str(picture.format).lower()
            opaque = not picture.has_transparency_data
            if form.name not in (None, came) or (form.quality is not None and came != "png"):
                content, came = encoded(picture, form), form.name or came
            elif came == "png" and not keep_metadata:
                content = without_texts(content)
            return Shown(content, came, *picture.size, opaque or came == "jpeg")
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise EngineFault(f"ComfyUI gave something that is no picture: {error}.") from error


def encoded(picture: Image.Image, form: Form) -> bytes:
    buffer = io.BytesIO()
    quality = QUALITY if form.quality is None else form.quality
    made = picture.convert("RGB") if form.name == "jpeg" else picture
    made.save(buffer, str(form.name), **({} if form.name == "png" else {"quality": quality}))
    return buffer.getvalue()


def without_texts(content: bytes) -> bytes:
    """A PNG without its text chunks: ComfyUI writes the operator's whole workflow into them. Pixels stay as they are.

    Raises struct.error for a file that is cut off."""
    parts, at = [PNG_SIGN], len(PNG_SIGN)
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if kind not in TEXTS:
            parts.append(content[at:end])
        at = end
    return b"".join(parts)
