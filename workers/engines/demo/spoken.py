"""What the demo recognisers have learnt to hear, and espeak-ng's voice saying it.

Owns the phrases and the synthetic speech for training and for tests. As a program it writes one wav file:
`python -m workers.engines.demo.spoken --out FILE.wav [--gap SECONDS] [--voice NAME] PHRASE_ID...`.
"""

from __future__ import annotations

import argparse
import ctypes
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np

RATE = 16_000
ESPEAK_RATE = 22_050
SYNCHRONOUS, UTF8, SPEED, PITCH = 2, 1, 1, 3
Samples = Any


@dataclass(frozen=True)
class Phrase:
    """`plain` is what is said, `written` the same with inverse text normalisation."""

    id: str
    language: str
    plain: str
    written: str


PHRASES = (
    Phrase("hello", "en", "hello world", "Hello world."),
    Phrase("cat", "en", "the cat sleeps on the sofa", "The cat sleeps on the sofa."),
    Phrase("lights", "en", "please turn off the lights", "Please turn off the lights."),
    Phrase("nine", "en", "we meet at nine", "We meet at 9."),
    Phrase("tea", "en", "she drinks green tea every morning", "She drinks green tea every morning."),
    Phrase("train", "en", "where is the next train", "Where is the next train?"),
    Phrase("nihao", "zh", "你好世界", "你好，世界。"),
    Phrase("weather", "zh", "今天天气很好", "今天天气很好。"),
    Phrase("window", "zh", "请打开窗户", "请打开窗户。"),
    Phrase("drink", "zh", "我喜欢喝茶", "我喜欢喝茶。"),
    Phrase("three", "zh", "我们三点见面", "我们3点见面。"),
    Phrase("station", "zh", "火车站在哪里", "火车站在哪里？"),
)
BY_ID = {phrase.id: phrase for phrase in PHRASES}
VOICES = {"en": ("en-us", "en-gb-x-rp", "en-us+f3"), "zh": ("cmn", "cmn+f3", "cmn+m3")}


_pieces: list[Samples] = []


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
def _take(samples: Any, count: int, events: Any) -> int:
    """Called by the library with each piece of sound."""
    if samples and count > 0:
        _pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
    return 0


@cache
def espeak() -> Any:
    """The library, started once per process: it keeps its state in globals."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate != ESPEAK_RATE:
        raise RuntimeError(f"espeak-ng did not start: {rate}")
    numbers = (ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
    library.espeak_Synth.argtypes = (ctypes.c_char_p, *numbers, ctypes.c_void_p, ctypes.c_void_p)
    library.espeak_SetSynthCallback(_take)
    return library


def say(text: str, voice: str, speed: int = 160, pitch: int = 50) -> Samples:
    """Speech as float32 in [-1, 1] at 16 kHz, silence at both ends cut off. Speed in words a minute."""
    from scipy.signal import resample_poly  # type: ignore[import-untyped,import-not-found,unused-ignore]

    library = espeak()
    _pieces.clear()
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise RuntimeError(f"espeak-ng has no voice {voice!r}")
    library.espeak_SetParameter(SPEED, speed, 0)
    library.espeak_SetParameter(PITCH, pitch, 0)
    raw = text.encode() + b"\0"
    if library.espeak_Synth(raw, len(raw), 0, 0, 0, UTF8, None, None) != 0 or not _pieces:
        raise RuntimeError("espeak-ng said nothing")
    sound = resample_poly(np.concatenate(_pieces).astype(np.float32) / 32768, 320, 441)
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    return sound[loud[0] : loud[-1] + 1].astype(np.float32)


def join(sounds: Sequence[Samples], gap: float, edge: float = 0.3) -> Samples:
    """The sounds one after another, with silences between them and at both ends (seconds)."""
    between, outside = np.zeros(int(gap * RATE), np.float32), np.zeros(int(edge * RATE), np.float32)
    parts = [outside]
    for place, sound in enumerate(sounds):
        parts += [between, sound] if place else [sound]
    return np.concatenate([*parts, outside])


def write_wav(path: Path, samples: Samples) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(prog="workers.engines.demo.spoken", description="Says demo phrases.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gap", type=float, default=1.2, help="seconds between phrases")
    parser.add_argument("--voice", type=int, default=0, choices=range(3), help="which of the voices")
    parser.add_argument("--speed", type=int, default=160)
    parser.add_argument("--pitch", type=int, default=50)
    parser.add_argument("phrases", nargs="+", choices=sorted(BY_ID))
    given = parser.parse_args()
    chosen = [BY_ID[name] for name in given.phrases]
    sounds = [
        say(each.plain, VOICES[each.language][given.voice], given.speed, given.pitch) for each in chosen
    ]
    write_wav(given.out, join(sounds, given.gap))


if __name__ == "__main__":
    main()
