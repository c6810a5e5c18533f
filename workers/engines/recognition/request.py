"""Reading a transcription request: OpenAI's fields, and ours beside them.

What the model cannot do is refused with what it can. Must not open files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.engines.failures import BadRequest, EngineError, UnsupportedParameter
from workers.engines.fields import Fields, wrong_type
from workers.engines.media import local_path
from workers.engines.recognition.hearing import Abilities, Mode

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
MOST_FILES = 256
MOST_HOTWORDS = 1000
LONGEST_HOTWORD = 64
HOTWORD = re.compile(r"[^\W_][\w'’·-]*")
# The names Whisper's API uses for what we have codes for.
LANGUAGES = {
    "zh": "chinese",
    "en": "english",
    "ja": "japanese",
    "ko": "korean",
    "yue": "cantonese",
    "de": "german",
    "fr": "french",
    "es": "spanish",
    "it": "italian",
    "pt": "portuguese",
    "ru": "russian",
}
CODES = {name: code for code, name in LANGUAGES.items()}


@dataclass(frozen=True)
class Input:
    """One file of a request. A batch keeps a wrong path as the error of that file."""

    name: str
    param: str
    path: Path | None = None
    error: EngineError | None = None


@dataclass(frozen=True)
class Ask:
    """One request."""

    inputs: Sequence[Input]
    batch: bool
    mode: Mode
    punctuation: bool
    format: str
    granularities: Collection[str]
    tags: bool
    speakers: bool
    stream: bool


@dataclass(frozen=True)
class Setting:
    """What the loaded models can do together."""

    abilities: Abilities
    marks: bool  # a punctuation model is there
    marks_with_itn: bool  # the recogniser writes marks where it is asked for itn
    speakers: bool
    media: str | None


def read(fields: Fields, setting: Setting, translate: bool) -> Ask:
    """Raises BadRequest. The caller has read `model`."""
    abilities = setting.abilities
    if translate and not abilities.translates:
        raise BadRequest(
            "This model does not translate; use /v1/audio/transcriptions.", code="unsupported_endpoint"
        )
    inputs, batch = read_inputs(fields, setting.media)
    form = fields.choice("response_format", FORMATS, "json")
    granularities = read_granularities(fields, form, abilities)
    tags, speakers = fields.flag("tags"), fields.flag("diarize") or fields.flag("speakers")
    stream = fields.flag("stream")
    itn = read_itn(fields, abilities)
    mode = Mode(
        read_language(fields, abilities),
        itn,
        read_hotwords(fields, abilities),
        translate,
        "word" in granularities,
    )
    ask = Ask(
        inputs,
        batch,
        mode,
        read_punctuation(fields, setting, itn),
        form,
        granularities,
        tags,
        speakers,
        stream,
    )
    refuse_others(fields, ask, setting)
    fields.close()
    return ask


def read_inputs(fields: Fields, media: str | None) -> tuple[list[Input], bool]:
    files = fields.listing("files")
    if files is None:
        path = local_path(fields.raw("file"), "file", media)
        return [Input(fields.text("filename") or path.name, "file", path)], False
    if fields.given("file") or fields.given("filename"):
        raise BadRequest("Give either 'file' or 'files'.", param="files")
    if not 1 <= len(files) <= MOST_FILES:
        raise BadRequest(f"'files' must hold 1 to {MOST_FILES} files.", param="files")
    return [read_entry(entry, place, media) for place, entry in enumerate(files)], True


def read_entry(entry: Any, place: int, media: str | None) -> Input:
    param = f"files[{place}]"
    if not isinstance(entry, dict) or not set(entry) <= {"file", "filename"}:
        raise wrong_type(param, "an object with 'file' and 'filename'")
    name = entry.get("filename")
    if name is not None and not isinstance(name, str):
        raise wrong_type(f"{param}.filename", "a string")
    try:
        path = local_path(entry.get("file"), f"{param}.file", media)
    except BadRequest as error:
        return Input(name or "", f"{param}.file", error=error)
    return Input(name or path.name, f"{param}.file", path)


def read_granularities(fields: Fields, form: str, abilities: Abilities) -> Collection[str]:
    given = fields.listing("timestamp_granularities")
    if given is None:
        return ("segment",)
    name = "timestamp_granularities"
    if form != "verbose_json":
        raise BadRequest(f"'{name}' needs the response_format verbose_json.", param=name)
    if not given or not all(each in ("word", "segment") for each in given):
        raise BadRequest(f"'{name}' must hold 'word', 'segment' or both.", param=name)
    if "word" in given and not abilities.words:
        raise UnsupportedParameter(name, "this model does not give times of words")
    return tuple(given)


def read_language(fields: Fields, abilities: Abilities) -> str:
    given = (fields.text("language") or "auto").strip().lower()
    code = CODES.get(given, given.partition("-")[0])
    if code != "auto" and code not in abilities.languages:
        known = ", ".join(("auto", *abilities.languages))
        raise BadRequest(f"This model has no language '{given}'; it has {known}.", param="language")
    return code


def read_itn(fields: Fields, abilities: Abilities) -> bool:
    if abilities.always_itn:
        fields.only("itn", (True,), "this model writes numbers and marks as it has learnt to")
        return True
    if fields.given("itn") and fields.flag("itn") and not abilities.itn:
        raise UnsupportedParameter("itn", "this model writes what is said as it is said")
    return fields.flag("itn", abilities.itn)


def read_punctuation(fields: Fields, setting: Setting, itn: bool) -> bool:
    """Whether the punctuation model runs."""
    own = itn and setting.marks_with_itn
    if not fields.given("punctuation"):
        return setting.marks and not own
    wanted = fields.flag("punctuation")
    if wanted and not own and not setting.marks:
        raise UnsupportedParameter("punctuation", "no punctuation model is configured (option punc_model)")
    if not wanted and own:
        raise UnsupportedParameter(
            "punctuation", "this model punctuates together with itn; ask for 'itn': false to have neither"
        )
    return wanted and not own


def read_hotwords(fields: Fields, abilities: Abilities) -> tuple[str, ...]:
    """Plain words, each once. FunASR would fetch an address and read a path, so neither may pass."""
    value = fields.raw("hotwords")
    if value is None:
        return ()
    given = re.split(r"[\s,，、]+", value.strip()) if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        raise wrong_type("hotwords", "a string or an array of strings")
    words = tuple(dict.fromkeys(part for word in given for part in word.split()))
    for word in words:
        if len(word) > LONGEST_HOTWORD or not HOTWORD.fullmatch(word):
            raise BadRequest(f"'hotwords' holds '{word[:64]}', which is not a plain word.", param="hotwords")
    if len(words) > MOST_HOTWORDS:
        raise BadRequest(f"'hotwords' may hold at most {MOST_HOTWORDS} words.", param="hotwords")
    if words and not abilities.hotwords:
        raise UnsupportedParameter("hotwords", "this model takes no hotwords")
    return words


def refuse_others(fields: Fields, ask: Ask, setting: Setting) -> None:
    fields.only("temperature", (0, 0.0), "this model always takes the likeliest text")
    fields.only("chunking_strategy", ("auto",), "the sound is always cut where nobody speaks")
    fields.only("include", ([],), "log probabilities are in verbose_json")
    fields.only("prompt", ("",), "this model reads no context; some models take 'hotwords'")
    if ask.stream and ask.batch:
        raise UnsupportedParameter("stream", "several files are answered together")
    if ask.tags and not setting.abilities.tags:
        raise UnsupportedParameter("tags", "this model does not hear emotions or events")
    if ask.tags and ask.format != "verbose_json" and not ask.batch:
        raise BadRequest("'tags' needs the response_format verbose_json.", param="tags")
    if ask.speakers and not setting.speakers:
        name = "diarize" if fields.given("diarize") else "speakers"
        raise UnsupportedParameter(name, "no speaker model is configured (option spk_model)")
