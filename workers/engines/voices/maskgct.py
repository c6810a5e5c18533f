"""MaskGCT from a checkout of Amphion: clones a voice. NOT VERIFIED here: its packages and weights could not be had.

It needs an environment of its own (Amphion pins old versions; see its `models/tts/maskgct/requirements.txt`). The
model's source is a folder with the files of `amphion/MaskGCT`; w2v-bert-2.0 must be in the Hugging Face cache, because
Amphion names it itself. Options: `amphion` (the checkout). The calls are those of its `maskgct_inference.py`.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.engines.voices.backend import DEFAULT_VOICE, Facts, Utterance
from workers.engines.voices.interrupt import Interrupt
from workers.engines.voices.languages import by_script
from workers.engines.voices.sound import Sound, as_int16

RATE = 24_000
MODULE = "models.tts.maskgct.maskgct_utils"
LANGUAGES = {"cmn": "zh", "en-us": "en", "ja": "ja", "ko": "ko", "fr-fr": "fr", "de": "de"}


class MaskGctVoice:
    """Amphion's pipeline as a synthesizer."""

    def __init__(self, checkout: Path, weights: Path, device: str) -> None:
        """Raises ImportError for a missing checkout or package. Changes the working folder: Amphion's paths are
        relative to its checkout."""
        self._pipeline = load_pipeline(checkout, weights, device)
        self._interrupt = Interrupt([self._pipeline.t2s_model, self._pipeline.s2a_model_full])
        self.facts = Facts(
            name="maskgct",
            voices=(DEFAULT_VOICE,),
            languages=tuple(LANGUAGES),
            clones=True,
            needs_reference=True,
        )

    def speak(self, utterance: Utterance, stop: Callable[[], bool]) -> Sound:
        reference = utterance.reference
        if reference is None or reference.text is None:
            raise ValueError("a request without a reference came this far")
        spoken = LANGUAGES[by_script(reference.text)]
        with tempfile.NamedTemporaryFile(suffix=".wav") as prompt, self._interrupt.watching(stop):
            prompt.write(reference.wav)
            prompt.flush()
            samples = self._pipeline.maskgct_inference(
                prompt.name, reference.text, utterance.text, spoken, LANGUAGES[utterance.language]
            )
        return Sound(as_int16(samples), RATE)

    def close(self) -> None:
        """Nothing: its memory goes with the process."""


def load_pipeline(checkout: Path, weights: Path, device: str) -> Any:
    if not (checkout / "models/tts/maskgct/maskgct_utils.py").is_file():
        raise ImportError(
            f"option 'amphion' must name a checkout of Amphion; {checkout} has no models/tts/maskgct"
        )
    sys.path.insert(0, str(checkout))
    os.chdir(checkout)
    try:
        amphion = importlib.import_module(MODULE)
        load_model = importlib.import_module("safetensors.torch").load_model
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"MaskGCT needs the packages of Amphion's models/tts/maskgct/requirements.txt: {error}"
        ) from error
    target = torch.device("cuda:0" if device == "cuda" else device)
    config = amphion.load_config(str(checkout / "models/tts/maskgct/config/maskgct.json")).model
    semantic_model, mean, std = amphion.build_semantic_model(target)
    codec = amphion.build_semantic_codec(config.semantic_codec, target)
    encoder, decoder = amphion.build_acoustic_codec(config.acoustic_codec, target)
    t2s = amphion.build_t2s_model(config.t2s_model, target)
    s2a_first = amphion.build_s2a_model(config.s2a_model.s2a_1layer, target)
    s2a_full = amphion.build_s2a_model(config.s2a_model.s2a_full, target)
    files = {
        "semantic_codec/model.safetensors": codec,
        "acoustic_codec/model.safetensors": encoder,
        "acoustic_codec/model_1.safetensors": decoder,
        "t2s_model/model.safetensors": t2s,
        "s2a_model/s2a_model_1layer/model.safetensors": s2a_first,
        "s2a_model/s2a_model_full/model.safetensors": s2a_full,
    }
    for name, part in files.items():
        load_model(part, str(weights / name))
    return amphion.MaskGCT_Inference_Pipeline(
        semantic_model, codec, encoder, decoder, t2s, s2a_first, s2a_full, mean, std, target
    )
