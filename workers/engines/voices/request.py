"""Reading the body of `/v1/audio/speech`. Owns its fields, their defaults and limits; makes no sound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from workers.engines.failures import BadRequest, UnsupportedParameter
from workers.engines.fields import Fields, wrong_type
from workers.engines.voices.backend import DEFAULT_VOICE, Facts, Reference, Utterance
from workers.engines.voices.encode import FORMATS
from workers.engines.voices.languages import by_script
from workers.engines.voices.sentences import split

SLOWEST, FASTEST = 0.25, 4.0
REFERENCE_NAMES = ("reference_audio", "voice_audio", "prompt_audio")


@dataclass(frozen=True)
class Recording:
    """A voice to clone that nobody has looked at yet: a file's URL, the field it came in, and what is said in it."""

    value: Any
    param: str
    text: str | None


@dataclass(frozen=True)
class SpeechRequest:
    """What one caller wants to hear. `tempo` is the part of the speed that the backend leaves to a filter."""

    utterances: tuple[Utterance, ...]
    characters: int
    form: str
    events: bool
    speed: float
    tempo: float
    recording: Recording | None

    def cloning(self, reference: Reference) -> SpeechRequest:
        """The same, in that voice."""
        return replace(self, utterances=tuple(replace(each, reference=reference) for each in self.utterances))


@dataclass(frozen=True)
class Limits:
    """What an operator allows."""

    characters: int
    piece: int


def read_request(fields: Fields, facts: Facts, limits: Limits) -> SpeechRequest:
    """Raises BadRequest, and UnsupportedParameter for what this backend cannot do."""
    text = read_text(fields, limits.characters)
    voice = read_voice(fields, facts)
    language = read_language(fields, facts)
    instructions = read_instructions(fields, facts)
    speed = fields.number("speed", SLOWEST, FASTEST)
    form = fields.choice("response_format", FORMATS, "mp3")
    events = fields.choice("stream_format", ("audio", "sse"), "audio") == "sse"
    recording = recording_of(fields, facts)
    fields.close()
    speed = 1.0 if speed is None else speed
    own = min(max(speed, facts.speeds[0]), facts.speeds[1])
    pieces = split(text, limits.piece)
    said = [language or spoken_language(piece, facts) for piece in pieces]
    utterances = tuple(
        Utterance(piece, voice, tongue, own, instructions) for piece, tongue in zip(pieces, said, strict=True)
    )
    return SpeechRequest(utterances, len(text), form, events, speed, speed / own, recording)


def read_text(fields: Fields, most: int) -> str:
    text = fields.text("input")
    if text is None:
        raise BadRequest("'input' is required.", param="input")
    if len(text) > most:
        raise BadRequest(f"'input' has {len(text)} characters; at most {most} are spoken.", param="input")
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise BadRequest("'input' is not valid Unicode: it holds a lone surrogate.", param="input")
    # Control characters have no sound; white space among them stays what it is.
    text = "".join(sign if sign.isprintable() or sign.isspace() else " " for sign in text)
    if not text.strip():
        raise BadRequest("'input' holds nothing that can be spoken.", param="input")
    return text


def read_voice(fields: Fields, facts: Facts) -> str:
    """A name, or OpenAI's object with an `id`."""
    given = fields.raw("voice")
    if isinstance(given, dict):
        inner = Fields(given)
        given = inner.text("id")
        inner.close()
    if given is None:
        return DEFAULT_VOICE
    if not isinstance(given, str):
        raise wrong_type("voice", "a string, or an object with an 'id'")
    own = facts.voice(given)
    if own is None:
        known = ", ".join((*facts.voices, *sorted(name for name in facts.stand_ins)))
        raise BadRequest(f"Unknown voice '{given[:64]}'. Known: {known}.", param="voice")
    return own


def read_language(fields: Fields, facts: Facts) -> str | None:
    given = fields.text("language")
    if given is None or given == "auto":
        return None
    own = facts.language(given)
    if own is None:
        known = ", ".join(facts.languages)
        raise BadRequest(f"Unknown language '{given[:64]}'. Known: {known}.", param="language")
    return own


def spoken_language(piece: str, facts: Facts) -> str:
    """The language of one piece, by its script. A backend without a list of languages hears them itself."""
    if not facts.languages:
        return ""
    found = by_script(piece)
    own = facts.language(found)
    if own is None:
        known = ", ".join(facts.languages)
        raise BadRequest(
            f"The text looks like '{found}', which this voice does not speak: {known}.", param="input"
        )
    return own


def read_instructions(fields: Fields, facts: Facts) -> str | None:
    if not facts.takes_instructions:
        fields.only("instructions", ("",), "this voice takes no instructions")
        return None
    return fields.text("instructions") or None


def recording_of(fields: Fields, facts: Facts) -> Recording | None:
    """The voice to clone, under the first of its names that is given."""
    given = [name for name in REFERENCE_NAMES if fields.given(name)]
    if not facts.clones:
        if given:
            raise UnsupportedParameter(given[0], "this voice cannot clone another")
        return None
    if len(given) > 1:
        raise BadRequest(f"'{given[0]}' and '{given[1]}' mean the same; give one.", param=given[1])
    text = fields.text("reference_text")
    if not given:
        if text or facts.needs_reference:
            raise BadRequest("'reference_audio' is required.", param="reference_audio")
        return None
    if facts.needs_reference and not text:
        raise BadRequest(
            "'reference_text' is required: what is said in the recording.", param="reference_text"
        )
    return Recording(fields.raw(given[0]), given[0], text)
