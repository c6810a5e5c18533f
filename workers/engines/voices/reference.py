"""Reading the recording of a voice that is to be cloned.

Whatever the file is, it leaves here as a short mono wav file: so it was audio, it is small, and every voice can read
it. The same decoder reads what another server answered.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from workers.engines.failures import BadRequest
from workers.engines.media import local_path
from workers.engines.voices.backend import Reference
from workers.engines.voices.encode import whole_wav
from workers.engines.voices.sound import RATE, Samples, Sound

SHORTEST_S = 0.5
# Formats that hold their sound themselves: a playlist could name other files of this machine.
CONTAINERS = "aac,ac3,aiff,amr,asf,au,avi,caf,flac,matroska,webm,mov,mp3,mp4,mpeg,mpegts,ogg,wav,w64,wv"


class NotAudio(Exception):
    """The bytes are no sound that can be read, or more of it than was allowed."""


def read_reference(
    value: Any, param: str, text: str | None, folder: str | None, longest_s: float
) -> Reference:
    """The recording that a field names. Raises BadRequest unless it is audio of a fitting length."""
    path = local_path(value, param, folder)
    try:
        sound = decode(path, longest_s)
    except NotAudio as error:
        raise BadRequest(f"'{param}' cannot be used: {error}.", param=param) from error
    if sound.seconds < SHORTEST_S:
        raise BadRequest(
            f"'{param}' has {sound.seconds:.2f} s of sound; {SHORTEST_S} s are needed.", param=param
        )
    return Reference(whole_wav(sound.samples, sound.rate), sound.seconds, text)


def decode(source: Path | bytes, longest_s: float) -> Sound:
    """All sound of a file, mono at 24 kHz. Raises NotAudio; stops reading where there is too much."""
    opened: Any = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    parts: list[Samples] = []
    size = 0
    try:
        for part in decoded(opened):
            parts.append(part)
            size += len(part)
            if size > longest_s * RATE:
                raise NotAudio(f"it is longer than {longest_s:g} s")
    except (av.error.FFmpegError, ValueError, UnicodeError) as error:
        raise NotAudio(f"it is no readable audio ({type(error).__name__})") from error
    return Sound(np.concatenate([np.zeros(0, np.int16), *parts]), RATE)


def decoded(opened: Any) -> Iterator[Samples]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    with av.open(opened, options=options) as container:
        if not container.streams.audio:
            raise NotAudio("it has no sound")
        for frame in container.decode(audio=0):
            for ready in resampler.resample(frame):
                yield ready.to_ndarray().reshape(-1)
        for ready in resampler.resample(None):
            yield ready.to_ndarray().reshape(-1)
