"""Loading: a pipeline from a folder or from one file of weights, and ControlNets by name.

Nothing is fetched: what is not on disk is an error that says what is missing. Must not know requests.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

WEIGHTS = (".safetensors", ".ckpt")
KEPT = 4  # ControlNets of one model; each has a third of its weights or more
QUANTIZERS = {"bitsandbytes_4bit": "bitsandbytes", "bitsandbytes_8bit": "bitsandbytes"}
QUANTIZERS |= {"gguf": "gguf", "quanto": "optimum.quanto", "torchao": "torchao"}


@dataclass(frozen=True)
class Source:
    """Where the weights are, and how they are to be held."""

    path: Path
    dtype: Any
    config: str = ""
    variant: str = ""
    quantization: Mapping[str, Any] | None = None


def load(source: Source) -> Any:
    """A text to image pipeline on the processor. Raises ValueError or what the library raises."""
    path = weights_of(source.path)
    pipe = from_file(path, source) if path.is_file() else from_folder(path, source)
    return diffusers.AutoPipelineForText2Image.from_pipe(pipe)


def weights_of(path: Path) -> Path:
    """The folder of a whole pipeline, or one file of weights."""
    if path.is_file():
        if path.suffix not in WEIGHTS:
            raise ValueError(f"{path} is none of {', '.join(WEIGHTS)}")
        return path
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {path}")
    if (path / "model_index.json").is_file():
        return path
    found = sorted(each for each in path.iterdir() if each.suffix in WEIGHTS and each.is_file())
    if len(found) != 1:
        raise ValueError(f"{path} has no model_index.json and {len(found)} files of weights; one is needed")
    return found[0]


def from_folder(path: Path, source: Source) -> Any:
    extra: dict[str, Any] = {"variant": source.variant} if source.variant else {}
    if source.quantization:
        extra["quantization_config"] = quantization(source.quantization)
    index = json.loads((path / "model_index.json").read_text("utf-8"))
    if "safety_checker" in index:
        extra |= {"safety_checker": None, "requires_safety_checker": False}
    return diffusers.DiffusionPipeline.from_pretrained(
        path, dtype=source.dtype, local_files_only=True, **extra
    )


def from_file(path: Path, source: Source) -> Any:
    if source.quantization:
        raise ValueError("quantization needs a model in a folder, not in one file")
    config = Path(source.config) if source.config else path.with_suffix("")
    if not (config / "model_index.json").is_file():
        raise ValueError(
            f"{path.name} holds weights only: option config must name a folder with model_index.json and the"
            f" configurations and tokenizer files it lists (looked in {config})"
        )
    index = json.loads((config / "model_index.json").read_text("utf-8"))
    kind = getattr(diffusers, index["_class_name"])
    return kind.from_single_file(str(path), config=str(config), local_files_only=True, dtype=source.dtype)


def quantization(asked: Mapping[str, Any]) -> Any:
    """diffusers' own configuration: `backend`, `components`, and the backend's arguments."""
    values = dict(asked)
    backend = values.pop("backend", "")
    if backend not in QUANTIZERS:
        raise ValueError(f"option quantization: backend must be one of {', '.join(sorted(QUANTIZERS))}")
    package = QUANTIZERS[backend]
    if importlib.util.find_spec(package.partition(".")[0]) is None:
        raise ValueError(
            f"option quantization: {backend} needs the package {package}, which is not installed here"
        )
    components = values.pop("components", None)
    return diffusers.PipelineQuantizationConfig(
        quant_backend=backend, quant_kwargs=values, components_to_quantize=components
    )


class ControlNets:
    """The ControlNets this engine may use. The `KEPT` used last stay loaded, or as many as one run asks for."""

    def __init__(self, paths: Mapping[str, Path], dtype: Any, device: str) -> None:
        for name, path in paths.items():
            if not path.exists():
                raise ValueError(f"ControlNet {name!r}: there is no file or folder {path}")
        self._paths = dict(paths)
        self._loaded: dict[str, Any] = {}  # the one used last stands last
        self._dtype = dtype
        self._device = device

    def names(self) -> list[str]:
        return sorted(self._paths)

    def loaded(self) -> list[str]:
        return sorted(self._loaded)

    def make_room(self, names: Collection[str]) -> None:
        """Let go what was not used for longest, until all of these fit in."""
        others = [name for name in self._loaded if name not in names]
        for name in others[: max(0, len(others) + len(set(names)) - KEPT)]:
            del self._loaded[name]

    def get(self, name: str) -> Any:
        net = self._loaded.pop(name, None)
        if net is None:
            net = load_controlnet(self._paths[name], self._dtype).to(self._device).eval()
        self._loaded[name] = net
        return net


def load_controlnet(path: Path, dtype: Any) -> Any:
    if path.is_file():
        config = path.with_suffix("")
        if not (config / "config.json").is_file():
            raise ValueError(f"{path.name} holds weights only: {config} must hold its config.json")
        return diffusers.ControlNetModel.from_single_file(
            str(path), config=str(config), local_files_only=True, torch_dtype=dtype
        )
    index = json.loads((path / "config.json").read_text("utf-8"))
    kind = getattr(diffusers, index.get("_class_name", "ControlNetModel"))
    return kind.from_pretrained(path, dtype=dtype, local_files_only=True)


def controlnet_paths(named: Mapping[str, Any], folder: str) -> dict[str, Path]:
    """Option `controlnets`, and everything in the folder that looks like one. A given name wins over a found one."""
    found: dict[str, Path] = {}
    if folder:
        if not Path(folder).is_dir():
            raise ValueError(f"option controlnet_folder: there is no folder {folder}")
        for path in sorted(Path(folder).iterdir()):
            if (path.is_dir() and (path / "config.json").is_file() and any(path.glob("*.safetensors"))) or (
                path.is_file() and path.suffix in WEIGHTS
            ):
                found[path.name.removesuffix(".safetensors")] = path
    return found | {name: Path(str(path)) for name, path in named.items()}


def dtype_of(name: str, device: str) -> Any:
    """The precision by name; by itself float32 on a processor and float16 elsewhere."""
    chosen = name or ("float32" if device.startswith("cpu") else "float16")
    found = getattr(torch, chosen, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"option dtype: {chosen!r} is no precision")
    return found
