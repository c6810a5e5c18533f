"""Reading the beginnings of files that anybody may have put there: bounded, and never executed or unpickled.

Everything here returns None for what it cannot read.
"""

import math
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

LONGEST_JSON = 4 * 2**20
LONGEST_HEADER = 16 * 2**20
LONGEST_GGUF = 2**20
MOST_TENSORS = 200_000
_MODEL_LINE = re.compile(rb"^model:[ \t]*([A-Za-z0-9_.-]{1,80})[ \t]*\r?$", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z0-9_.+/-]{1,100}")
# What GGUF calls types of weights: https://github.com/ggml-org/ggml, docs/gguf.md, `general.file_type`.
_GGUF_TYPES = dict(
    enumerate(("F32", "F16", "Q4_0", "Q4_1", None, None, None, "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S"))
) | {
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    32: "BF16",
}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def beginning(path: Path, most: int) -> bytes | None:
    """The first bytes of a regular file. A pipe or a device is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any] | None:
    raw = beginning(path, LONGEST_JSON + 1)
    if raw is None or len(raw) > LONGEST_JSON:
        return None
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def word(value: object) -> str | None:
    """A value that is a short plain word or path: what is shown to people must not steer their terminals."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def funasr_class(path: Path) -> str | None:
    """The class that a FunASR configuration names. The YAML is not parsed: one line says it."""
    match = _MODEL_LINE.search(beginning(path, 2**18) or b"")
    return match[1].decode() if match else None


@dataclass(frozen=True, slots=True)
class Tensors:
    """What the header of a safetensors file lists: shapes by name, and the type that most numbers have."""

    shapes: Mapping[str, tuple[int, ...]]
    dtype: str | None

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    def any(self, *parts: str) -> bool:
        """Whether a tensor has one of these parts in its name."""
        return any(part in name for name in self.shapes for part in parts)


def safetensors(path: Path) -> Tensors | None:
    """The header: eight bytes of length, then JSON."""
    first = beginning(path, 8)
    if first is None or len(first) < 8:
        return None
    (length,) = struct.unpack("<Q", first)
    if not 2 <= length <= LONGEST_HEADER:
        return None
    raw = beginning(path, 8 + length) or b""
    try:
        header = orjson.loads(raw[8:])
    except orjson.JSONDecodeError:
        return None
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        return None
    shapes: dict[str, tuple[int, ...]] = {}
    counts: dict[str, int] = {}
    for name, entry in header.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if name == "__metadata__" or not isinstance(shape, list) or len(shape) > 16:
            continue
        if all(type(side) is int and 0 <= side < 2**40 for side in shape):
            shapes[name] = tuple(shape)
            dtype = word(entry.get("dtype")) or "?"
            counts[dtype] = counts.get(dtype, 0) + math.prod(shape)
    return Tensors(shapes, max(counts, key=lambda name: counts[name], default=None)) if shapes else None


def gguf(path: Path) -> dict[str, Any] | None:
    """The leading metadata of a GGUF file: `architecture`, `context`, `quantisation`."""
    raw = beginning(path, LONGEST_GGUF) or b""
    if raw[:4] != b"GGUF" or len(raw) < 24:
        return None
    found = {key: value for key, value in _pairs(raw) if isinstance(value, str | int)}
    architecture = word(found.get("general.architecture"))
    context = found.get(f"{architecture}.context_length")
    kind = found.get("general.file_type")
    return {
        "architecture": architecture,
        "context": context if isinstance(context, int) and 0 < context < 2**32 else None,
        "quantisation": _GGUF_TYPES.get(kind) if isinstance(kind, int) else None,
    }


def _pairs(raw: bytes) -> Iterator[tuple[str, Any]]:
    """Key and value, until the first array: the tokens of a tokenizer come after all that is wanted here."""
    (count,) = struct.unpack_from("<Q", raw, 16)
    at = 24
    try:
        for _ in range(min(count, 1000)):
            key, at = _text(raw, at)
            (kind,) = struct.unpack_from("<I", raw, at)
            at += 4
            if kind == _STRING:
                value, at = _text(raw, at)
                yield key, value
            elif kind in _SCALARS:
                yield key, struct.unpack_from(f"<{_SCALARS[kind]}", raw, at)[0]
                at += struct.calcsize(f"<{_SCALARS[kind]}")
            else:
                return
    except (struct.error, ValueError):
        return


def _text(raw: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", raw, at)
    end = at + 8 + length
    if end > len(raw):
        raise ValueError("cut off")
    return raw[at + 8 : end].decode(errors="replace"), end
