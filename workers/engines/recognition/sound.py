"""Sound files of a request as samples: 16-bit mono at 16 kHz.

A plain wav file in the right form is read here after a strict look at its header; every other file goes to a decoder.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.engines.failures import BadRequest
from workers.engines.sounds.decoder import Unreadable
from workers.engines.sounds.decoders import Decoders, Samples, load

RATE = 16_000
WAV_HEADER = 44


@dataclass(frozen=True)
class Sound:
    """`samples` is an int16 array at 16 kHz."""

    samples: Samples

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    def piece(self, start: int, end: int) -> Samples:
        """Samples `start` to `end` as float32 in [-1, 1)."""
        return self.samples[start:end].astype(np.float32) / np.float32(32768)


async def opened(decoders: Decoders, path: Path, param: str) -> Sound:
    """The sound in the file. Raises BadRequest for everything that is wrong with it."""
    try:
        plain = await asyncio.to_thread(plain_wav, path)
        sound = Sound(await decoders.samples(path) if plain is None else plain)
        if sound.seconds > decoders.limits.seconds:
            raise Unreadable(f"lasts {sound.seconds:.0f} seconds; the limit is {decoders.limits.seconds:.0f}")
    except Unreadable as error:
        raise BadRequest(f"The file {error}.", param=param, code="invalid_audio") from error
    return sound


def plain_wav(path: Path) -> Samples | None:
    """The samples of a wav file that is exactly in our form with the simplest header; None for every other file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(WAV_HEADER)
    if len(header) < WAV_HEADER or header[:4] != b"RIFF" or header[8:16] != b"WAVEfmt ":
        return None
    form = [int.from_bytes(header[at:end], "little") for at, end in FORM_FIELDS]
    if form != [16, 1, 1, RATE, RATE * 2, 2, 16] or header[36:40] != b"data":
        return None
    stated = int.from_bytes(header[40:44], "little")
    if stated % 2 or stated != size - WAV_HEADER:
        return None
    return load(path, WAV_HEADER, stated // 2)


# Length of the block, encoding (1: PCM), channels, rate, bytes a second, bytes a frame, bits.
FORM_FIELDS = ((16, 20), (20, 22), (22, 24), (24, 28), (28, 32), (32, 34), (34, 36))
