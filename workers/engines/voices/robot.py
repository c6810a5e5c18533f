"""The voice that needs no weights: espeak-ng's formant synthesis, in all its languages."""

from __future__ import annotations

from collections.abc import Callable

from workers.engines.espeak import NORMAL_RATE, VARIANTS, EspeakError
from workers.engines.espeak_process import Crashed, EspeakProcess
from workers.engines.failures import BadRequest
from workers.engines.voices.backend import DEFAULT_VOICE, Facts, Utterance
from workers.engines.voices.sound import Sound
from workers.engines.window import Abandoned

STAND_INS = {
    "alloy": "f1",
    "ash": "m1",
    "ballad": "m2",
    "coral": "f2",
    "echo": "m3",
    "fable": "m4",
    "nova": "f3",
    "onyx": "m7",
    "sage": "f4",
    "shimmer": "f5",
    "verse": "m5",
}


class RobotVoice:
    """espeak-ng as a synthesizer. A voice is a variant (`f2`); the language is chosen beside it."""

    def __init__(self) -> None:
        """Raises EspeakError where the library is missing."""
        self._espeak = EspeakProcess()
        self.facts = Facts(
            name="espeak",
            voices=(DEFAULT_VOICE, *VARIANTS),
            stand_ins=STAND_INS,
            languages=tuple(sorted(self._espeak.languages)),
            # espeak-ng speaks 80 words a minute at least; 175 is its normal rate.
            speeds=(0.5, 4.0),
        )

    def speak(self, utterance: Utterance, stop: Callable[[], bool]) -> Sound:
        variant = None if utterance.voice == DEFAULT_VOICE else utterance.voice
        rate = round(NORMAL_RATE * utterance.speed)
        try:
            samples, hertz = self._espeak.synthesize(utterance.text, utterance.language, variant, rate, stop)
        except EspeakError as error:
            if stop():
                raise Abandoned from error
            if isinstance(error, Crashed):
                raise BadRequest(f"The voice cannot speak this text: {error}.", param="input") from error
            raise
        if stop():
            raise Abandoned
        return Sound(samples, hertz)

    def close(self) -> None:
        self._espeak.close()
