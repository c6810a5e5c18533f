"""Kokoro: a small neural voice (82 M weights) that runs on a processor.

The folder is that of the published model: `config.json`, one `*.pth`, and `voices/NAME.pt`. Of the package `kokoro`
only the network is used; its front end is replaced by espeak-ng (see `ipa`), and for Mandarin by `misaki.zh` where
that is installed. Options: `threads` (torch threads, default all cores), `disable_complex` (for devices without complex
numbers, default false).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workers.engines.espeak_process import Crashed, EspeakProcess
from workers.engines.failures import BadRequest
from workers.engines.voices.backend import DEFAULT_VOICE, Facts, Utterance
from workers.engines.voices.interrupt import Interrupt
from workers.engines.voices.ipa import cut, kokoro_phonemes
from workers.engines.voices.languages import MANDARIN
from workers.engines.voices.sound import Sound, as_int16

RATE = 24_000
PACKAGES = "pip install --no-deps kokoro==0.9.4 loguru attrs"
# The first letter of a voice's name is its language.
LETTERS: Mapping[str, str] = {
    "en-us": "a",
    "en-gb": "b",
    "es": "e",
    "fr-fr": "f",
    "hi": "h",
    "it": "i",
    "pt-br": "p",
    MANDARIN: "z",
}
FAVOURITES = ("af_heart", "bf_emma", "zf_xiaobei")
STAND_INS: Mapping[str, str] = {
    "alloy": "af_alloy",
    "ash": "am_adam",
    "ballad": "bm_george",
    "coral": "af_bella",
    "echo": "am_echo",
    "fable": "bm_fable",
    "nova": "af_nova",
    "onyx": "am_onyx",
    "sage": "af_sarah",
    "shimmer": "af_sky",
    "verse": "am_michael",
}


@dataclass(frozen=True)
class KokoroOptions:
    """How the network runs."""

    threads: int = 0
    disable_complex: bool = False


class KokoroVoice:
    """One Kokoro network and its voices, as a synthesizer."""

    def __init__(self, folder: Path, device: str, options: KokoroOptions) -> None:
        """Raises ImportError for missing packages, ValueError for a folder in another form."""
        network = import_network()
        weights, voices = files_of(folder)
        if device.startswith("cpu"):
            torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
        self._model = network.KModel(
            repo_id="local",
            config=str(folder / "config.json"),
            model=str(weights),
            disable_complex=options.disable_complex,
        )
        self._model = self._model.to(device).eval()
        self._interrupt = Interrupt([self._model])
        self._espeak = EspeakProcess()
        self._mandarin = mandarin_front_end(self._model.vocab)
        self._voices = {path.stem: load_voice(path) for path in voices}
        languages = [each for each in LETTERS if each != MANDARIN or self._mandarin is not None]
        self.facts = Facts(
            name="kokoro",
            voices=(DEFAULT_VOICE, *self._voices),
            stand_ins={
                name: own if own in self._voices else DEFAULT_VOICE for name, own in STAND_INS.items()
            },
            languages=tuple(languages),
            speeds=(0.5, 2.0),
        )

    def speak(self, utterance: Utterance, stop: Callable[[], bool]) -> Sound:
        phonemes = self.phonemes(utterance.text, utterance.language)
        voice = self._voices[self.voice(utterance.voice, utterance.language)]
        parts = [np.zeros(0, np.int16)]
        with self._interrupt.watching(stop), torch.inference_mode():
            # The network reads its context less a sign at either end.
            for part in cut(phonemes, self._model.context_length - 2):
                style = voice[min(len(part), len(voice)) - 1]
                parts.append(as_int16(self._model(part, style, speed=utterance.speed).numpy()))
        return Sound(np.concatenate(parts), RATE)

    def close(self) -> None:
        self._espeak.close()

    def voice(self, name: str, language: str) -> str:
        """The voice of that name; by default one whose language it is, else any."""
        if name != DEFAULT_VOICE:
            return name
        own = [each for each in self._voices if each.startswith(LETTERS[language])] or list(self._voices)
        return next((each for each in FAVOURITES if each in own), own[0])

    def phonemes(self, text: str, language: str) -> str:
        """The text in the network's alphabet, without signs that it does not have."""
        if language == MANDARIN and self._mandarin is not None:
            spoken = self._mandarin(text)
        else:
            try:
                spoken = kokoro_phonemes(text, language, self._espeak.phonemes)
            except Crashed as error:
                raise BadRequest(f"The voice cannot speak this text: {error}.", param="input") from error
        return "".join(sign for sign in spoken if sign in self._model.vocab)


def import_network() -> Any:
    """The module `kokoro.model`. The package's own `__init__` is passed by: it imports spaCy through misaki."""
    spec = importlib.util.find_spec("kokoro") if "kokoro" not in sys.modules else None
    if spec is not None and spec.submodule_search_locations:
        shell = types.ModuleType("kokoro")
        shell.__path__ = list(spec.submodule_search_locations)
        sys.modules["kokoro"] = shell
    try:
        # It writes what is spoken to the log.
        importlib.import_module("loguru").logger.disable("kokoro")
        return importlib.import_module("kokoro.model")
    except ImportError as error:
        raise ImportError(f"the kokoro backend needs packages ({PACKAGES}): {error}") from error


def mandarin_front_end(vocabulary: Mapping[str, int]) -> Callable[[str], str] | None:
    """misaki's, where it and its packages are installed. The vocabulary tells which of its two alphabets it is."""
    try:
        front = importlib.import_module("misaki.zh").ZHG2P(version="1.1" if "ㄅ" in vocabulary else None)
        # Its dictionary loads with the first word.
        front("好")
    except ImportError:
        return None
    return lambda text: str(front(text)[0])


def files_of(folder: Path) -> tuple[Path, list[Path]]:
    """The weights and the voices. Raises ValueError where there is not one of the first or none of the second."""
    weights = sorted(folder.glob("*.pth"))
    voices = sorted((folder / "voices").glob("*.pt"))
    if len(weights) != 1 or not voices or not (folder / "config.json").is_file():
        raise ValueError("a Kokoro folder has config.json, one *.pth, and voices/*.pt")
    return weights[0], voices


def load_voice(path: Path) -> Any:
    """Styles by the number of phonemes: a tensor of (510, 1, 256)."""
    voice = torch.load(path, map_location="cpu", weights_only=True)
    if getattr(voice, "ndim", 0) != 3:
        raise ValueError(f"{path.name} is no voice: expected a tensor of three dimensions")
    return voice.float()
