"""What every image engine has in common with OpenAI's image endpoints: fields that are read alike, and named events.

Must not know models or servers; it runs without their libraries.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from typing import Any

from workers.engines import encoding
from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.fields import Fields

MOST_PREVIEWS = 3
MOST_SEED = 2**63 - 1
FORMATS = ("png", "jpeg", "webp")
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_HARMLESS = {
    "quality": ("auto", "standard"),
    "style": ("auto", "natural"),
    "background": ("auto", "opaque"),
    "moderation": ("auto", "low"),
}


def size_of(fields: Fields) -> tuple[int, int] | None:
    """Width and height of `size`; None where it leaves them open. Raises BadRequest."""
    text = fields.text("size")
    if text is None or text == "auto":
        return None
    found = _SIZE.fullmatch(text)
    if found is None:
        raise BadRequest("'size' must be like 512x768, or auto.", param="size")
    return int(found[1]), int(found[2])


def harmless(fields: Fields, read: Collection[str] = ()) -> None:
    """Refuse what cannot be had of the fields that ask for a manner, except those that the engine reads itself."""
    for name, values in _HARMLESS.items():
        if name not in read:
            fields.only(name, values, f"only {', '.join(values)} can be had here")
    # The gateway makes links of pictures; an engine always answers base64.
    fields.choice("response_format", ("url", "b64_json"), "b64_json")


def output_of(fields: Fields) -> tuple[str | None, int | None]:
    """Format and quality (0 to 100) of the answer's pictures, each None where nobody asked. Raises BadRequest."""
    name = fields.choice("output_format", FORMATS, "") or None
    quality = fields.integer("output_compression", 0, 100)
    if quality not in (None, 100) and name not in ("jpeg", "webp"):
        raise UnsupportedParameter("output_compression", "only jpeg and webp have a quality to choose")
    return name, quality


def named_event(name: str, model: str, place: int, facts: dict[str, Any]) -> bytes:
    """An event of a stream. `index` tells which of several pictures it is about, which OpenAI's events do not."""
    value = {"type": name, "created_at": int(time.time()), "model": model, "index": place, "quality": "auto"}
    return b"event: " + name.encode() + b"\n" + encoding.event(value | facts)
