"""Encoding mono sound while it is still being made: samples go in, bytes of a file come out at once.

Compressed formats are FFmpeg's, through PyAV, written without seeking back. A wav file that is written before its end
is known has the sizes 0xFFFFFFFF, which readers take as "until the end"; `whole_wav` writes the real ones. Must not
know where samples come from.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import av
import numpy as np

from workers.engines.voices.sound import RATE, Samples, as_int16, frame_of

UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True)
class Format:
    """How one response format is made. Without a codec the samples are written as they are."""

    media: str
    muxer: str = ""
    codec: str = ""
    bit_rate: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)


FORMATS: Mapping[str, Format] = {
    "mp3": Format("audio/mpeg", "mp3", "libmp3lame", 96_000, {"write_xing": "0", "id3v2_version": "0"}),
    # A page for every tenth of a second: Ogg's own default holds back a whole one.
    "opus": Format("audio/ogg", "ogg", "libopus", 48_000, {"page_duration": "100000"}),
    "aac": Format("audio/aac", "adts", "aac", 96_000),
    "flac": Format("audio/flac", "flac", "flac"),
    "wav": Format("audio/wav"),
    "pcm": Format("audio/pcm"),
}


class Encoder(Protocol):
    """One sound on its way to bytes. Used by one thread at a time."""

    def feed(self, samples: Samples) -> bytes:
        """What can be written after these samples (int16, or float at full scale one)."""

    def close(self) -> bytes:
        """The rest."""


def encoder(name: str, rate: int = RATE) -> Encoder:
    """An encoder for one of FORMATS."""
    form = FORMATS[name]
    if form.codec:
        return Compressed(form, rate)
    return Plain(wav_header(rate, None) if name == "wav" else b"")


class Plain:
    """Samples as they are, behind a header."""

    def __init__(self, header: bytes) -> None:
        self._header = header

    def feed(self, samples: Samples) -> bytes:
        header, self._header = self._header, b""
        return header + little_endian(samples)

    def close(self) -> bytes:
        return self._header


class Compressed:
    """FFmpeg's encoder and muxer over a sink that cannot seek."""

    def __init__(self, form: Format, rate: int) -> None:
        self._sink = Sink()
        options = {"fflags": "flush_packets", **form.options}
        self._file: Any = av.open(self._sink, "w", format=form.muxer, options=options)
        stream: Any = self._file.add_stream(form.codec, rate=rate, layout="mono")
        if form.bit_rate is not None:
            stream.bit_rate = form.bit_rate
        self._stream = stream
        self._rate = rate
        self._at = 0

    def feed(self, samples: Samples) -> bytes:
        samples = as_int16(samples)
        if len(samples):
            frame = frame_of(samples, self._rate, self._at)
            self._at += len(samples)
            self._file.mux(self._stream.encode(frame))
        return self._sink.take()

    def close(self) -> bytes:
        self._file.mux(self._stream.encode(None))
        self._file.close()
        return self._sink.take()


class Sink:
    """What FFmpeg wrote since it was last taken. No `seek`: the muxer must not go back."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, content: bytes) -> int:
        self._written += content
        return len(content)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def whole_wav(samples: Samples, rate: int = RATE) -> bytes:
    """A wav file whose header has the real sizes."""
    content = little_endian(samples)
    return wav_header(rate, len(content)) + content


def little_endian(samples: Samples) -> bytes:
    content: bytes = as_int16(samples).astype("<i2").tobytes()
    return content


def wav_header(rate: int, size: int | None) -> bytes:
    """RIFF header of mono 16-bit samples; `size` is in bytes, None when nobody knows it yet."""
    riff, data = (UNKNOWN, UNKNOWN) if size is None else (36 + size, size)
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", riff)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", data)
    )


def silence(seconds: float, rate: int = RATE) -> Samples:
    return np.zeros(round(seconds * rate), np.int16)
