"""What a voice is to the speech engine: facts about it, and sound for one piece of text.

Two kinds stand behind `Backend`: models of this process, which run on one thread through a `Window` so that requests
take turns piece by piece, and servers elsewhere, which are asked over HTTP. Must not know requests or formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from workers.engines.voices.languages import resolve
from workers.engines.voices.sound import Sound
from workers.engines.window import Abandoned, Batch, Window

DEFAULT_VOICE = "default"


@dataclass(frozen=True)
class Reference:
    """A voice to clone: a short wav file, and what is said in it."""

    wav: bytes
    seconds: float
    text: str | None


@dataclass(frozen=True)
class Utterance:
    """One piece of text, and how it is to be said. `speed` is within the backend's own range."""

    text: str
    voice: str = DEFAULT_VOICE
    language: str = ""
    speed: float = 1.0
    instructions: str | None = None
    reference: Reference | None = None


@dataclass(frozen=True)
class Facts:
    """What a backend can do.

    No `voices`, or no `languages`: any name is passed on. `stand_ins` says which own voice answers to a name of
    OpenAI's. `speeds` is the range that the backend honours itself.
    """

    name: str
    voices: tuple[str, ...] = ()
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    speeds: tuple[float, float] = (1.0, 1.0)
    sample_rate: int = 24_000
    clones: bool = False
    needs_reference: bool = False
    takes_instructions: bool = False

    def voice(self, name: str) -> str | None:
        """The own voice that a caller's name means; None when there is none."""
        if not self.voices or name in self.voices:
            return name
        own = self.stand_ins.get(name, "")
        return own if own in self.voices else None

    def language(self, code: str) -> str | None:
        """The own language that a caller's code means; None when there is none."""
        return resolve(code, self.languages) if self.languages else code


class Backend(Protocol):
    """Where sound comes from. Several calls may be under way; cancelling one gives up its work."""

    facts: Facts

    async def speak(self, utterance: Utterance) -> Sound:
        """Sound for one piece. Raises EngineError."""

    def counts(self) -> Mapping[str, int]:
        """Numbers for `/health`: pieces spoken, and pieces that wait."""

    def close(self) -> None:
        """Release what it holds."""


class Synthesizer(Protocol):
    """A model of this process, called on one thread."""

    facts: Facts

    def speak(self, utterance: Utterance, stop: Callable[[], bool]) -> Sound:
        """Sound for one piece; raises Abandoned when it saw `stop` turn true."""

    def close(self) -> None:
        """Release what it holds."""


class LocalBackend:
    """A synthesizer behind a window: one piece at a time, in order of arrival."""

    def __init__(self, synthesizer: Synthesizer) -> None:
        self.facts = synthesizer.facts
        self._synthesizer = synthesizer
        self._window: Window[Utterance, Sound] = Window(self._run, lambda waiting: (0,))
        self._window.start()

    async def speak(self, utterance: Utterance) -> Sound:
        return (await self._window.submit([utterance]))[0]

    def counts(self) -> Mapping[str, int]:
        return {"pieces": self._window.items, "waiting": self._window.waiting()}

    def close(self) -> None:
        self._window.stop()
        self._synthesizer.close()

    def _run(self, batch: Batch[Utterance, Sound]) -> Sequence[Sound]:
        sounds = [self._synthesizer.speak(each, batch.abandoned) for each in batch.items]
        if batch.abandoned():
            raise Abandoned
        return sounds
