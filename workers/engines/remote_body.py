"""What the remote engine sends: the caller's body with the upstream's name of the model, and files inside it.

Files come as `file:` URLs below the media folder. In JSON they become `data:` URLs; where OpenAI takes a form they
become its parts. Must not know HTTP clients.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.media import local_path
from workers.signs import recognised

# The fields of a form that are files.
FORMS: Mapping[str, tuple[str, ...]] = {
    "images/edits": ("image", "mask"),
    "audio/transcriptions": ("file",),
    "audio/translations": ("file",),
}
# Fields of JSON bodies that may hold a file's URL. A text that happens to begin with `file:` has another name.
PLACES = frozenset(
    ("url", "image_url", "image", "mask", "input_image", "reference_audio", "data", "file_data")
)


@dataclass(frozen=True)
class Part:
    """One file on its way."""

    content: bytes
    media: str
    ending: str

    @classmethod
    def of(cls, content: bytes) -> Part:
        return cls(content, *(recognised(content) or ("application/octet-stream", "bin")))

    def text(self) -> str:
        return base64.b64encode(self.content).decode()

    def url(self) -> str:
        return f"data:{self.media};base64,{self.text()}"


@dataclass(frozen=True)
class Form:
    """A multipart body: plain fields, and files as (field, (name, bytes, media type))."""

    fields: dict[str, list[str]]
    files: list[tuple[str, tuple[str, bytes, str]]]


def names_file(value: Any) -> bool:
    return isinstance(value, str) and value[:5].lower() == "file:"


def embedded(value: Any, folder: str | None, path: str = "") -> Any:
    """A JSON value with the files it names inside it. Raises BadRequest for a file that is not in the folder."""
    if isinstance(value, list):
        return [embedded(each, folder, f"{path}[{place}]") for place, each in enumerate(value)]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for name, each in value.items():
        here = f"{path}.{name}" if path else name
        if name in PLACES and names_file(each):
            part = read(each, here, folder)
            if name == "url" and value.get("type") == "url":  # Anthropic's form of a picture
                return {"type": "base64", "media_type": part.media, "data": part.text()}
            made[name] = part.text() if name == "data" else part.url()
        elif name in PLACES and isinstance(each, list):
            made[name] = [read(one, here, folder).url() if names_file(one) else one for one in each]
        else:
            made[name] = embedded(each, folder, here)
    return made


def form_of(body: Mapping[str, Any], places: tuple[str, ...], folder: str | None) -> Form:
    """The body as a form. Raises BadRequest where a file is missing, and for several sounds in one request."""
    if body.get("files") is not None:
        raise UnsupportedParameter("files", "the upstream takes one file per request")
    form = Form({}, [])
    for name, value in body.items():
        if name not in places:
            for field, text in flattened(name, value):
                form.fields.setdefault(field, []).append(text)
        elif value is not None:
            several = isinstance(value, list)
            for place, each in enumerate(value if several else [value]):
                part = read(each, f"{name}[{place}]" if several else name, folder)
                named = (f"{name}{place}.{part.ending}", part.content, part.media)
                form.files.append((f"{name}[]" if several else name, named))
    if not form.files:
        raise BadRequest(f"'{places[0]}' must name a file.", param=places[0])
    return form


def flattened(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Fields of a form for one JSON value, nested ones with brackets as OpenAI's own client writes them."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from flattened(f"{name}[{key}]", each)
    elif isinstance(value, list):
        for each in value:
            yield from flattened(f"{name}[]", each)
    elif isinstance(value, bool):
        yield name, str(value).lower()
    elif value is not None:
        yield name, str(value)


def read(value: Any, param: str, folder: str | None) -> Part:
    """The bytes of a `file:` or `data:` URL."""
    if isinstance(value, str) and value.startswith("data:"):
        head, comma, text = value.partition(",")
        try:
            if not comma or not head.endswith(";base64"):
                raise ValueError("no base64")
            return Part.of(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError) as error:
            raise BadRequest(f"'{param}' is not a base64 `data:` URL.", param=param) from error
    return Part.of(Path(local_path(value, param, folder)).read_bytes())
