"""The cause behind a failure's message: the message with everything folded that differs from job to job. Pure.

"cannot read /data/a/17.wav" and "cannot read /data/b/9.wav" have one cause, and are one line in a list of causes.
"""

import re

LONGEST = 300
"""Characters of a message that are looked at; what follows is detail."""

_FOLDS = (
    (re.compile(r"\b[a-z][a-z0-9+.-]{1,15}://[^\s'\"<>)\]]+"), "<url>"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<id>"),
    # Digits among the letters: without one, eight letters from a to f may be a word.
    (re.compile(r"\b(?:0x)?(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}\b"), "<id>"),
    (re.compile(r"(?<![\w<>.])~?(?:/[\w.+@%=-]+){2,}/?"), "<path>"),
    (re.compile(r"[0-9]+(?:[.,][0-9]+)*"), "<n>"),
    (re.compile(r"\s+"), " "),
)
"""In this order: an address holds paths, and everything holds digits."""


def pattern_of(message: str) -> str:
    """The message with addresses, ids, paths and numbers replaced by `<url>`, `<id>`, `<path>`, `<n>`."""
    folded = message[:LONGEST]
    for found, name in _FOLDS:
        folded = found.sub(name, folded)
    return folded.strip()
