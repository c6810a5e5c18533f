"""What the demo recognisers have learnt to hear, and espeak-ng's voice saying it.

Owns the phrases and the synthetic speech for training and for tests. As a program it writes one wav file:
`python -m workers.engines.demo.spoken --out FILE.wav [--gap SECONDS] [--voice NAME] PHRASE_ID...`.
"""

from __future__ import annotations

import argparse
import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from workers.engines.espeak import Espeak

RATE = 16_000
ESPEAK_RATE = 22_050
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
SAYING = "espeak-ng with a fixed seed"
"""Part of every recipe that listens: other sounds make another model."""
VOICES = {"en": ("en-us", "en-gb-x-rp", "en-us+f3"), "zh": ("cmn", "cmn+f3", "cmn+m3")}


@cache
def library() -> Espeak:
    """The library, started once per process: it keeps its state in globals."""
    return Espeak()


def say(text: str, voice: str, speed: int = 160, pitch: int = 50) -> Samples:
    """Speech as float32 in [-1, 1] at 16 kHz, silence at both ends cut off. Speed in words a minute.

    A process that says the same things in the same order gets the same samples, sample for sample.
    """
    from scipy.signal import resample_poly  # type: ignore[import-untyped,import-not-found,unused-ignore]

    language, _, variant = voice.partition("+")
    samples, rate = library().synthesize(text, language, variant or None, speed, pitch=pitch)
    if rate != ESPEAK_RATE or not len(samples):
        raise RuntimeError(f"espeak-ng said {len(samples)} samples at {rate} Hz")
    sound = resample_poly(samples.astype(np.float32) / 32768, 320, 441)
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    return sound[loud[0] : loud[-1] + 1].astype(np.float32)


def join(sounds: Sequence[Samples], gap: float, edge: float = 0.3) -> Samples:
    """The sounds one after another, with silences between them and at both ends (seconds)."""
    between, outside = np.zeros(int(gap * RATE), np.float32), np.zeros(int(edge * RATE), np.float32)
    parts = [outside]
    for place, sound in enumerate(sounds):
        parts += [between, sound] if place else [sound]
    return np.concatenate([*parts, outside])


def coded(samples: Samples, codec: str, rate: int = 44_100) -> Samples:
    """The same sound after a lossy codec of PyAV's, at the codec's rate: quieter above, and a little later."""
    import av

    held = io.BytesIO()
    with av.open(held, "w", format="matroska") as target:
        stream: Any = target.add_stream(codec, rate=rate, layout="mono")
        sound = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        sound.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, "mono", rate)
        for frame in (*resampler.resample(sound), *resampler.resample(None), None):
            target.mux(stream.encode(frame))
    held.seek(0)
    back = av.AudioResampler("fltp", "mono", RATE)
    with av.open(held, "r") as source:
        frames = [piece for frame in source.decode(audio=0) for piece in back.resample(frame)]
    frames += back.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


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
