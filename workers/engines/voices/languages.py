"""Which language a text or a code means. Codes are espeak-ng's: `en-us`, `cmn`, `fr-fr`."""

from __future__ import annotations

import re
from collections.abc import Collection

MANDARIN, ENGLISH = "cmn", "en-us"
HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
WORD = re.compile("[A-Za-z]+")
# The usual ways to name the two languages that are found by script.
NAMES = {
    "english": ENGLISH,
    "en": ENGLISH,
    "chinese": MANDARIN,
    "mandarin": MANDARIN,
    "zh": MANDARIN,
    "zh-cn": MANDARIN,
    "zh-hans": MANDARIN,
    "zh-tw": MANDARIN,
    "zh-hant": MANDARIN,
    "zh-cmn": MANDARIN,
}


def by_script(text: str) -> str:
    """Mandarin where there are at least as many Han characters as Latin words, else English."""
    han = len(HAN.findall(text))
    return MANDARIN if han and han >= len(WORD.findall(text)) else ENGLISH


def resolve(code: str, known: Collection[str]) -> str | None:
    """The known code that is meant: itself, by its usual name, without its region, or the first of its language."""
    wanted = code.strip().lower().replace("_", "-")
    wanted = NAMES.get(wanted, wanted)
    if wanted in known:
        return wanted
    base = wanted.partition("-")[0]
    if base in known:
        return base
    return next((each for each in sorted(known) if each.startswith(f"{base}-")), None)
