"""Which recogniser a folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workers.engines.recognition.folders import load_folder
from workers.engines.recognition.hearing import Recogniser


def load_recogniser(folder: str, device: str, threads: int, languages: Sequence[str]) -> Recogniser:
    """Raises ValueError for a folder of no family that this engine reads."""
    place = Path(folder)
    if list(place.glob("*.onnx")) and not (place / "model.pt").is_file():
        raise ValueError(
            f"{folder} holds an ONNX model; this engine reads FunASR's model.pt and Whisper's folders"
        )
    loaded = load_folder(folder, device, threads)
    if loaded.kind == "SenseVoiceSmall":
        from workers.engines.recognition.sensevoice import SenseVoice

        return SenseVoice(loaded, device)
    if hasattr(loaded.model, "cal_decoder_with_predictor"):
        from workers.engines.recognition.paraformer import Paraformer

        return Paraformer(loaded, languages)
    raise ValueError(f"{folder} is a {loaded.kind}; this engine knows SenseVoiceSmall and the Paraformers")
