"""A model that was found, and the configuration that would add it. Pure."""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_SUFFIXES = (".safetensors", ".ckpt", ".gguf", ".onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a folder or a file is. `type` is one of the types of models, None for what cannot answer by itself.

    `engines` are those that run it, the best with an accelerator first; `role` says what a part is for (lora, vae,
    controlnet, vad, punctuation, ...); `note` what a person has to know.
    """

    type: str | None = None
    engines: tuple[str, ...] = ()
    family: str | None = None
    role: str | None = None
    parameters: int | None = None
    quantisation: str | None = None
    dtype: str | None = None
    context: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`id` is the path below the folder of models; `size` in bytes, of everything in it; `modified` unix seconds."""

    id: str
    path: Path
    kind: Kind
    size: int
    modified: float

    def facts(self) -> dict[str, Any]:
        """For lists, JSON and tables: what is known and nothing else."""
        kind = self.kind
        facts = {
            "type": kind.type,
            "engine": kind.engines[0] if kind.engines else None,
            "engines": list(kind.engines),
            "family": kind.family,
            "role": kind.role,
            "size_bytes": self.size,
            "parameters": kind.parameters,
            "quantisation": kind.quantisation,
            "dtype": kind.dtype,
            "context": kind.context,
            "note": kind.note,
        }
        return {name: value for name, value in facts.items() if value not in (None, [])}


def suggestion(found: Found, *, accelerated: bool, taken: Container[str] = ()) -> str | None:
    """The YAML that configures a model; None for one that no engine here runs."""
    kind = found.kind
    if kind.type is None or not kind.engines:
        return None
    model: dict[str, Any] = {
        # Where there is no accelerator the last one is the one for processors.
        "engine": kind.engines[0] if accelerated else kind.engines[-1],
        "source": f"models/{found.id}",
        "type": kind.type,
    }
    if kind.context and kind.type in ("chat", "completion"):
        model["context"] = kind.context
    tree = {"models": {free_name(found.id, taken): model}}
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def free_name(model_id: str, taken: Container[str]) -> str:
    """A public name: the last part of the id without its suffix, with a number where it is taken."""
    last = model_id.rpartition("/")[2]
    for suffix in _SUFFIXES:
        last = last.removesuffix(suffix)
    name = _NO_NAME.sub("-", last).strip("-.") or "model"
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def unconfigured(found: Iterable[Found], sources: Iterable[Path]) -> list[Found]:
    """Those that no configured model uses: as a whole, in part, or as one of several files."""
    used = [source.resolve() for source in sources]
    return [each for each in found if not any(_same_place(each.path, path) for path in used)]


def _same_place(found: Path, source: Path) -> bool:
    return found == source or found in source.parents or source == found.parent
