"""espeak-ng through ctypes: text to samples, and text to phonemes.

The library and its data come from the wheel `espeakng_loader`, found when the first `Espeak` is made. espeak-ng keeps
one global state: one `Espeak` per process, used by one thread at a time. Text is always plain text: neither SSML nor
phoneme markup nor the library's control characters reach it. Some texts crash the library: an engine uses it through
`workers.engines.espeak_process`. Must not know any endpoint.

The calls and constants are those of espeak-ng's `speak_lib.h`, version 1.52.
"""

from __future__ import annotations

import ctypes
import importlib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# AUDIO_OUTPUT_SYNCHRONOUS: no audio device, and the callback runs inside espeak_Synth, on the caller's thread.
SYNCHRONOUS = 2
DO_NOT_EXIT = 0x8000
RATE, PITCH = 1, 3
BY_CHARACTER = 1
UTF8 = 1
IPA = 2
TIE_IS_GIVEN = 0x80
OK = 0
NORMAL_RATE, NORMAL_PITCH = 175, 50
SLOWEST, FASTEST = 80, 700
# Languages that espeak-ng lists and the wheel has no dictionary for.
WITHOUT_DICTIONARY = ("fo", "kaa", "xex")
VARIANTS = (*(f"f{number}" for number in range(1, 6)), *(f"m{number}" for number in range(1, 9)))

Samples = Any
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class EspeakError(Exception):
    """espeak-ng is missing, or refused a call."""


class VoiceRecord(ctypes.Structure):
    """`espeak_VOICE`. `languages` is a list of a priority byte and a terminated name each, ended by a zero byte."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("unused", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class Language:
    """One language of espeak-ng: its main code (`en-us`), what it is called, and every code it answers to."""

    code: str
    title: str
    identifier: str
    codes: tuple[str, ...]


class Espeak:
    """The library, initialised. Not thread safe."""

    def __init__(self) -> None:
        """Raises EspeakError where the wheel is missing or its library does not start."""
        self._lib, data = load_library()
        self.sample_rate = start(self._lib, data)
        self.languages: Mapping[str, Language] = {
            each.code: each for each in read_languages(self._lib) if each.code not in WITHOUT_DICTIONARY
        }
        self._parts: list[bytes] = []
        self._stop: Callable[[], bool] = lambda: False
        # Kept: the library calls it for as long as it lives.
        self._callback = Callback(self._receive)
        self._lib.espeak_SetSynthCallback(self._callback)

    def synthesize(
        self,
        text: str,
        language: str = "en-us",
        variant: str | None = None,
        rate: int = NORMAL_RATE,
        stop: Callable[[], bool] = lambda: False,
        pitch: int = NORMAL_PITCH,
    ) -> tuple[Samples, int]:
        """Mono int16 samples and their rate in hertz.

        `variant` is one of VARIANTS; `rate` is in words a minute, from SLOWEST to FASTEST; `stop` is asked after every
        60 ms of sound, and ends the synthesis early; `pitch` goes from 0 to 100, the voice's own is NORMAL_PITCH.
        Raises EspeakError for an unknown voice.
        """
        self._choose(language, variant)
        self._lib.espeak_SetParameter(RATE, max(SLOWEST, min(FASTEST, rate)), 0)
        self._lib.espeak_SetParameter(PITCH, pitch, 0)
        self._parts, self._stop = [], stop
        content = encoded(text)
        done = self._lib.espeak_Synth(
            content, ctypes.c_size_t(len(content)), 0, BY_CHARACTER, 0, UTF8, None, None
        )
        if done != OK:
            raise EspeakError(f"espeak-ng failed with {done}")
        return np.frombuffer(b"".join(self._parts), np.int16), self.sample_rate

    def phonemes(self, text: str, language: str = "en-us", tie: str = "") -> list[str]:
        """IPA, one string per clause, without the punctuation between. `tie` joins the letters of one phoneme."""
        self._choose(language, None)
        content = ctypes.create_string_buffer(encoded(text))
        place = ctypes.c_void_p(ctypes.addressof(content))
        mode = IPA | (TIE_IS_GIVEN | ord(tie) << 8 if tie else 0)
        clauses = []
        while place.value:
            spoken = self._lib.espeak_TextToPhonemes(ctypes.byref(place), UTF8, mode)
            clauses.append((spoken or b"").decode("utf-8", "replace"))
        return clauses

    def _choose(self, language: str, variant: str | None) -> None:
        entry = self.languages.get(language)
        if entry is None or (variant is not None and variant not in VARIANTS):
            raise EspeakError(f"no espeak-ng voice {language}, {variant}")
        name = entry.identifier if variant is None else f"{entry.identifier}+{variant}"
        if self._lib.espeak_SetVoiceByName(name.encode()) != OK:
            raise EspeakError(f"espeak-ng cannot load the voice {name}")

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._parts.append(ctypes.string_at(samples, count * 2))
        return int(self._stop())


def load_library() -> tuple[Any, str]:
    """The library, and the folder of its data."""
    try:
        loader = importlib.import_module("espeakng_loader")
        lib = ctypes.CDLL(loader.get_library_path())
    except (ImportError, OSError) as error:
        raise EspeakError(f"espeak-ng needs the package espeakng-loader: {error}") from error
    lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
    lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(VoiceRecord))
    return lib, loader.get_data_path()


def start(lib: Any, data: str) -> int:
    rate = int(lib.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), DO_NOT_EXIT))
    if rate <= 0:
        raise EspeakError(f"espeak-ng does not start with the data in {data}")
    # It starts its noise (whispers, breath) from the clock.
    lib.espeak_ng_SetRandSeed(ctypes.c_long(1))
    return rate


def read_languages(lib: Any) -> list[Language]:
    found = lib.espeak_ListVoices(None)
    languages = []
    place = 0
    while found[place]:
        record = found[place].contents
        codes = read_codes(record.languages)
        title, identifier = record.name.decode(), record.identifier.decode()
        languages.append(Language(codes[0], title, identifier, codes))
        place += 1
    return languages


def read_codes(address: int) -> tuple[str, ...]:
    """The names in a list of a priority byte and a terminated string each."""
    codes = []
    while ctypes.string_at(address, 1) != b"\0":
        code = ctypes.string_at(address + 1)
        codes.append(code.decode())
        address += len(code) + 2
    return tuple(codes)


def encoded(text: str) -> bytes:
    """UTF-8 with an end. Control characters would be commands to the library (\\x01 changes voice and speed)."""
    plain = "".join(" " if unicodedata.category(sign) in ("Cc", "Cs") else sign for sign in text)
    return plain.encode() + b"\0"
