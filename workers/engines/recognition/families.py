"""Which recogniser a folder holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from workers.engines.recognition.folders import load_folder
from workers.engines.recognition.hearing import Recogniser


def load_recogniser(
    folder: str, device: str, threads: int, languages: Sequence[str], quantised: bool = False
) -> Recogniser:
    """`quantised`: the ONNX model in 8 bits. Raises ValueError for a folder of no family that this engine reads."""
    place = Path(folder)
    if is_whisper(place):
        from workers.engines.recognition.whisper import Whisper

        return Whisper(folder, device)
    if quantised or (list(place.glob("*.onnx")) and not (place / "model.pt").is_file()):
        from workers.engines.recognition.sensevoice_onnx import SenseVoiceOnnx, find_graph

        return SenseVoiceOnnx(find_graph(place, quantised), device, threads)
    loaded = load_folder(folder, device, threads)
    if loaded.kind == "SenseVoiceSmall":
        from workers.engines.recognition.sensevoice import SenseVoice

        return SenseVoice(loaded, device)
    if hasattr(loaded.model, "cal_decoder_with_predictor"):
        from workers.engines.recognition.paraformer import Paraformer

        return Paraformer(loaded, languages)
    raise ValueError(f"{folder} is a {loaded.kind}; this engine knows SenseVoiceSmall and the Paraformers")


def is_whisper(place: Path) -> bool:
    """Whether transformers would call it one."""
    try:
        config = json.loads((place / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "whisper"
