"""Phonemes for Kokoro, made by espeak-ng instead of the spaCy front end that Kokoro's own package brings.

Kokoro was trained on the alphabet of the package misaki: IPA with one sign for each diphthong and affricate, its own
signs for some English sounds, and the punctuation in place. The tables say how espeak-ng's IPA maps to it. Must not
know the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

TIE = "^"
# Kokoro's vocabulary has these marks. A point or comma within a number is no mark.
MARKS = re.compile(r"""([;:!?—…"“”()¡¿]+|[.,]+(?=\s|$))""")
SYLLABIC = re.compile("(\\S)\u0329")
# Letters that espeak-ng joins with a tie: one sound, one sign.
JOINED: Mapping[str, str] = {
    "a^ɪ": "I",
    "a^ʊ": "W",
    "e^ɪ": "A",
    "o^ʊ": "O",
    "ə^ʊ": "Q",
    "ɔ^ɪ": "Y",
    "d^ʒ": "ʤ",
    "t^ʃ": "ʧ",
    "d^z": "ʣ",
    "t^s": "ʦ",
    "ə^l": "ᵊl",
}
# English of both kinds: sounds that misaki writes otherwise, and foreign ones that the voices never heard.
ENGLISH: Mapping[str, str] = {
    "ɚ": "əɹ",
    "r": "ɹ",
    "x": "k",
    "ç": "k",
    "ɐ": "ə",
    "ɬ": "l",
    "ʲ": "",
    "\u0303": "",
    "o": "ɔ",
    "e": "A",
    "ɾ": "T",
    "ʔ": "t",
}
AMERICAN: Mapping[str, str] = {"ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɪə": "iə", "ː": ""}
BRITISH: Mapping[str, str] = {"e^ə": "ɛː", "iə": "ɪə"}

Phonemes = Callable[[str, str, str], list[str]]


def kokoro_phonemes(text: str, language: str, phonemes: Phonemes) -> str:
    """A text in Kokoro's alphabet. `phonemes(text, language, tie)` is espeak-ng's."""
    parts = []
    for part in MARKS.split(text):
        if MARKS.fullmatch(part):
            parts.append(f"{part} ")
        elif part.strip():
            parts.append(f"{mapped(' '.join(phonemes(part, language, TIE)), language)} ")
    joined = "".join(parts)
    return re.sub(r"\s+([;:!?—….,”)])", r"\1", joined).strip()


def mapped(ipa: str, language: str) -> str:
    """espeak-ng's IPA in Kokoro's signs."""
    tables = [JOINED]
    if language.startswith("en"):
        tables = [BRITISH, JOINED] if language.startswith("en-gb") else [JOINED]
        ipa = SYLLABIC.sub(r"ᵊ\1", ipa)
        tables += [ENGLISH] if language.startswith("en-gb") else [AMERICAN, ENGLISH]
    for table in tables:
        for old, new in table.items():
            ipa = ipa.replace(old, new)
    return ipa.replace(TIE, "").replace("-", "").replace("\u0329", "").strip()


def cut(phonemes: str, longest: int) -> list[str]:
    """Parts that fit the model's context, cut at spaces where there are any."""
    parts = []
    while len(phonemes) > longest:
        at = phonemes.rfind(" ", 1, longest)
        at = at if at > 0 else longest
        parts.append(phonemes[:at].strip())
        phonemes = phonemes[at:].strip()
    return [*parts, phonemes] if phonemes else parts
