"""Counting tokens with a model's own tokenizer, where its `tokenizer.json` lies on this host. Decides nothing."""

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tokenizers import Tokenizer

log = logging.getLogger(__name__)

SLICE = 32_000
"""Characters that are tokenised in one go: a count that has seen enough does not tokenise the rest."""
INLINE = 20_000
"""Characters up to which counting holds up the event loop for less than a thread would cost."""
KEPT = 8
"""Tokenizers in memory; one of 150,000 tokens takes about 100 MB."""
_CARELESS = 8
"""Characters per token that no language comes near, once blanks and ruled lines are left out."""
_CAUTIOUS = 3
"""ASCII characters per token that English and program text do not stay below for long; others are a token each."""
_CHEAP = re.compile(r"\s+|(\W)\1{3,}")

T = TypeVar("T")


class Counter:
    """One model's tokenizer, or a guess where there is none."""

    def __init__(self, tokenizer: Tokenizer | None):
        self._tokenizer = tokenizer
        self.exact = tokenizer is not None

    def least(self, texts: Iterable[str], enough: int) -> int:
        """Tokens that these texts have at least; counting ends above `enough`.

        Blanks around a text do not count: templates remove them.
        """
        count = 0
        for text in texts:
            for number, part in enumerate(_slices(text.strip())):
                # A cut may part a token in two, and begin a text with one more.
                count += max(0, self._length(part) - (2 if number else 0))
                if count > enough:
                    return count
        return count

    def likely(self, texts: Iterable[str], enough: int) -> int:
        """Tokens that these texts have; where there is no tokenizer a guess that is rather too high."""
        if self.exact:
            return self.least(texts, enough)
        letters = ascii_letters = 0
        for text in texts:
            letters += len(text)
            ascii_letters += len(text.encode("ascii", "ignore"))
        return ascii_letters // _CAUTIOUS + letters - ascii_letters

    def _length(self, text: str) -> int:
        if self._tokenizer is None:
            return len(_CHEAP.sub("", text)) // _CARELESS
        return len(self._tokenizer.encode(text, add_special_tokens=False))


class Tokenizers:
    """The tokenizers of models by their folders, loaded when first needed."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokens")
        self._known: OrderedDict[Path, asyncio.Future[Counter]] = OrderedDict()

    async def find(self, folder: Path) -> Counter:
        found = self._known.get(folder)
        if found is None:
            loop = asyncio.get_running_loop()
            found = self._known[folder] = loop.run_in_executor(self._threads, _load, folder)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(folder)
        # A caller who leaves must not take the others' tokenizer away.
        return await asyncio.shield(found)

    async def run(self, characters: int, work: Callable[[], T]) -> T:
        """Do work that reads so many characters where it holds up nobody."""
        if characters <= INLINE:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _load(folder: Path) -> Counter:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return Counter(None)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001  # the library raises nothing narrower
        log.warning("%s cannot be read, so long prompts are guessed at: %s", file, error)
        return Counter(None)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Counter(tokenizer)


def _slices(text: str) -> Iterator[str]:
    """Pieces of a text, cut before blanks where there are any."""
    start = 0
    while len(text) - start > SLICE:
        cut = text.rfind(" ", start + SLICE // 2, start + SLICE)
        end = cut if cut > 0 else start + SLICE
        yield text[start:end]
        start = end
    yield text[start:]
