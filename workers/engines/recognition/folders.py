"""Loading a FunASR model from its folder, and nothing from anywhere else.

FunASR resolves short names through a hub, runs code that a folder brings if it is told to, and only logs weights
that do not fit. Here a model is a folder with `config.yaml` and weights, no code of it runs, and weights that do not
fit fail the load.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workers.engines.recognition.banks import Banks


@dataclass(frozen=True)
class Loaded:
    """A model with what FunASR built around it; `settings` are the arguments of its `inference`."""

    model: Any
    settings: dict[str, Any]
    tokenizer: Any
    frontend: Any
    kind: str


def load_folder(folder: str, device: str, threads: int) -> Loaded:
    """Raises ValueError when the folder is not a model, or when its weights are not those of its configuration."""
    place = Path(folder).resolve()
    if not (place / "config.yaml").is_file() and not (place / "configuration.json").is_file():
        raise ValueError(f"{place} is not the folder of a FunASR model: it has no config.yaml")
    from funasr import AutoModel

    use_fast_banks()
    with silenced():
        model, settings = AutoModel.build_model(
            model=str(place),
            device=device,
            ncpu=threads,
            disable_update=True,
            disable_pbar=True,
            trust_remote_code=False,
        )
    actual = next(model.parameters()).device.type
    if actual != torch.device(device).type:
        raise ValueError(f"{place} was loaded on {actual}, not on {device}")
    check_weights(model, Path(settings["init_param"]))
    frontend = settings.pop("frontend", None)
    if hasattr(frontend, "dither"):
        frontend.dither = 0.0  # random noise in the features: the same file should give the same text
    # FunASR has replaced the name by the class's; positional arguments of `inference` must not come twice.
    kind, tokenizer = settings.pop("model"), settings.pop("tokenizer", None)
    return Loaded(model, settings, tokenizer, frontend, kind)


def use_fast_banks() -> None:
    """Let FunASR's frontends make their filter banks as we do."""
    from funasr.frontends import wav_frontend

    if not isinstance(wav_frontend.kaldi, Banks):
        wav_frontend.kaldi = Banks(wav_frontend.kaldi.fbank)


def check_weights(model: Any, path: Path) -> None:
    """Raises ValueError unless the file holds every weight of the model in its shape."""
    stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    for wrapper in ("state_dict", "model_state_dict", "model"):
        stored = stored.get(wrapper, stored)
    missing = [name for name, value in model.state_dict().items() if not fits(stored, name, value)]
    if missing:
        shown = ", ".join(missing[:3])
        raise ValueError(
            f"{path} lacks {len(missing)} weights of the configured model, or their shapes differ: {shown}"
        )


def fits(stored: Any, name: str, value: Any) -> bool:
    found = stored.get(name, stored.get(f"module.{name}"))
    return found is not None and found.shape == value.shape


@contextmanager
def silenced() -> Iterator[None]:
    """FunASR reports its loading through the root logger, in warnings."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
