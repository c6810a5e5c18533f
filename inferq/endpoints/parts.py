"""Where a conversation names files: in every part of it, at any depth, whatever the part says its type is.

Engines differ in what they look at: vLLM reads `image_url` beside any type when the part has a `uuid`. What an engine
would fetch by itself must not reach it, so every key under which one may look for a URL is found here.
"""

from collections.abc import Iterator
from typing import Any

from inferq import errors
from inferq.endpoints.endpoint import Body, FileKind, FilePlace
from inferq.endpoints.fields import OBJECT, STRING, wrong_type

DEEPEST = 16
"""Levels of objects and arrays in a message; conversations have about six."""

_URLS = {"image_url": FileKind.IMAGE, "video_url": FileKind.VIDEO, "audio_url": FileKind.AUDIO}
_SOUND = "input_audio"
_DATA = frozenset({"arguments", "input", "tools"})
"""What a model wrote for a tool, or the tools it had. Engines show it as text; a URL there is none of ours."""


def files_in(body: Body, *fields: str, unread: tuple[str, ...] = ()) -> Iterator[FilePlace]:
    """The files in these fields of a body.

    Raises InvalidRequest for a name that is no text, for a part whose type is in `unread`, and for what is nested too
    deep to be looked through.
    """
    for name in fields:
        value = body.get(name)
        if isinstance(value, list | dict):
            yield from _within(value, name, DEEPEST, unread)


def _within(value: Any, path: str, depth: int, unread: tuple[str, ...]) -> Iterator[FilePlace]:
    if not depth:
        raise errors.InvalidRequest(f"'{path}' is nested deeper than {DEEPEST} levels.", param=path)
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, list | dict):
                yield from _within(item, f"{path}[{index}]", depth - 1, unread)
        return
    if value.get("type") in unread:
        raise errors.InvalidRequest(f"Unsupported '{path}': files of this kind cannot be read.", param=path)
    yield from _named_by(value, path)
    for key, inner in value.items():
        if isinstance(inner, list | dict) and key not in _DATA and key not in _URLS and key != _SOUND:
            yield from _within(inner, f"{path}.{key}", depth - 1, unread)


def _named_by(part: dict[str, Any], path: str) -> Iterator[FilePlace]:
    """The files that an object itself names. A null is none, unless the object's type is of that name."""
    form = part.get("type")
    for key, kind in _URLS.items():
        named = part.get(key)
        if isinstance(named, dict):
            _require_text(named, "url", f"{path}.{key}")
            yield FilePlace(named, "url", f"{path}.{key}.url", kind)
        elif named is not None or form == key:
            _require_text(part, key, path)
            yield FilePlace(part, key, f"{path}.{key}", kind)
    sound = part.get(_SOUND)
    if sound is not None or form == _SOUND:
        if not isinstance(sound, dict):
            raise wrong_type(f"{path}.{_SOUND}", (OBJECT,), sound)
        _require_text(sound, "data", f"{path}.{_SOUND}")
        yield FilePlace(sound, "data", f"{path}.{_SOUND}.data", FileKind.AUDIO, bare=True)
    source = part.get("source")
    if isinstance(source, dict) and (source.get("type") == "url" or source.get("url") is not None):
        _require_text(source, "url", f"{path}.source")
        yield FilePlace(source, "url", f"{path}.source.url", FileKind.IMAGE)


def _require_text(holder: dict[str, Any], name: str, path: str) -> None:
    if not isinstance(holder.get(name), str):
        raise wrong_type(f"{path}.{name}", (STRING,), holder.get(name))
