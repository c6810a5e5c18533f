"""Sound: `audio/speech`, `audio/transcriptions`, `audio/translations`. Sizes are in seconds of sound."""

from collections.abc import Iterator
from typing import Any

from inferq import errors
from inferq.config import ModelSettings
from inferq.endpoints.endpoint import Answer, Body, Endpoint, FileKind, FilePlace, Files
from inferq.endpoints.fields import ARRAY, BOOLEAN, NUMBER, OBJECT, STRING, Field, wrong_type
from inferq.endpoints.gateway import GATEWAY, MODEL

SOUND_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
TEXT_FORMATS = ("json", "text", "srt", "verbose_json", "diarized_json", "vtt")
MOST_FILES = 256
_CHARACTERS_PER_SECOND = 15.0
_BYTES_PER_SECOND = 16_000.0
"""Of a file whose length could not be measured."""


def _voice(value: Any, path: str) -> None:
    if isinstance(value, dict) and not isinstance(value.get("id"), str):
        raise errors.InvalidRequest(f"Missing required parameter: '{path}.id'.", param=f"{path}.id")


def _file_list(value: list[Any], path: str) -> None:
    if not 0 < len(value) <= MOST_FILES:
        raise errors.InvalidRequest(
            f"Invalid '{path}': 1 to {MOST_FILES} files may be sent at once.", param=path
        )
    for index, item in enumerate(value):
        if not isinstance(item, dict) or not isinstance(item.get("file"), str):
            raise wrong_type(f"{path}[{index}]", (OBJECT,), item)


def _granularities(value: list[Any], path: str) -> None:
    for index, item in enumerate(value):
        if item not in ("word", "segment"):
            raise errors.InvalidRequest(
                f"Invalid value for '{path}[{index}]': legal are 'word' and 'segment'.", param=path
            )


SPEECH_TABLE = {
    "model": MODEL,
    "input": Field(types=(STRING,), required=True, doc="What is to be said."),
    "voice": Field(
        types=(STRING, OBJECT), doc="Name of a voice; `default` is the model's own.", check=_voice
    ),
    "response_format": Field(
        types=(STRING,), choices=tuple(SOUND_TYPES), doc="Default `mp3`; `pcm` is 24 kHz, 16 bit, mono."
    ),
    "speed": Field(types=(NUMBER,), low=0.25, high=4, doc="1 is the voice's own speed."),
    "stream_format": Field(types=(STRING,), choices=("audio", "sse"), doc="Bytes, or server-sent events."),
    "language": Field(types=(STRING,), doc="Language of the text; by default told from its letters."),
    "instructions": Field(types=(STRING,), doc="How it is to be said, for models that can."),
    "reference_audio": Field(
        types=(STRING,), doc="A voice to clone, for models that can: a URL or an artifact."
    ),
    "reference_text": Field(types=(STRING,), doc="What is said in the reference."),
    **GATEWAY,
}

_LISTENING = {
    "model": MODEL,
    "file": Field(
        types=(STRING,), doc="The sound: a part of the form, or an https URL, `data:` URL or artifact."
    ),
    "filename": Field(types=(STRING,), doc="What the sound is called, for people."),
    "files": Field(
        types=(ARRAY,), doc="Many sounds in one job: objects with `file` and `filename`.", check=_file_list
    ),
    "prompt": Field(types=(STRING,), doc="Text before the sound, for models that use it."),
    "response_format": Field(types=(STRING,), choices=TEXT_FORMATS, doc="Default `json`."),
    "temperature": Field(types=(NUMBER,), low=0, high=1, doc="0 always takes the likeliest."),
    **GATEWAY,
}

TRANSCRIPTION_TABLE = {
    **_LISTENING,
    "language": Field(types=(STRING,), doc="Such as `en` or `zh`; `auto` finds out."),
    "timestamp_granularities": Field(types=(ARRAY,), doc="`word`, `segment`.", check=_granularities),
    "stream": Field(types=(BOOLEAN,), doc="Answer as server-sent events."),
    "hotwords": Field(types=(STRING, ARRAY), doc="Words that are likely to be said."),
    "itn": Field(types=(BOOLEAN,), doc="Write numbers as figures. Default true."),
    "diarize": Field(types=(BOOLEAN,), doc="Name the speaker of each segment, for models that can."),
    "speakers": Field(types=(BOOLEAN,), doc="The same as `diarize`."),
    "chunking_strategy": Field(types=(STRING, OBJECT), doc="`auto`: sounds are always cut at silences."),
    **GATEWAY,
}

TRANSLATION_TABLE = {**_LISTENING}

BACKGROUND = Field(types=(BOOLEAN,), doc="Answer 202 with a job, at once.")


def _sources(body: Body) -> Iterator[FilePlace]:
    given = [name for name in ("file", "files") if body.get(name) is not None]
    if len(given) != 1:
        word = "Missing required parameter: 'file'." if not given else "Give 'file' or 'files', not both."
        raise errors.InvalidRequest(word, param="file")
    if "file" in given:
        yield FilePlace(body, "file", "file", FileKind.AUDIO, bare=True)
    for index, item in enumerate(body.get("files") or ()):
        yield FilePlace(item, "file", f"files[{index}].file", FileKind.AUDIO, bare=True)


def _reference(body: Body) -> Iterator[FilePlace]:
    if body.get("reference_audio") is not None:
        yield FilePlace(body, "reference_audio", "reference_audio", FileKind.AUDIO, bare=True)


def _heard(_body: Body, _model: ModelSettings, files: Files) -> float:
    measured = (facts.seconds or facts.size / _BYTES_PER_SECOND for facts in files.values())
    return max(1.0, sum(measured))


def _admit_heard(_body: Body, model: ModelSettings, files: Files) -> None:
    for param, facts in files.items():
        model.limits.check("seconds", facts.seconds, param, "the sound is {value:.0f} s long")


def _said(body: Body, _model: ModelSettings, _files: Files) -> float:
    return max(1.0, len(body["input"]) / _CHARACTERS_PER_SECOND / (body.get("speed") or 1.0))


def _admit_said(body: Body, model: ModelSettings, _files: Files) -> None:
    if not body["input"].strip():
        raise errors.InvalidRequest("Invalid 'input': the text is empty.", param="input")
    model.limits.check("characters", len(body["input"]), "input", "the text has {value:.0f} characters")


def _sound_type(body: Body) -> str | None:
    """Media type of speech that is sent while it is made."""
    return None if body.get("stream_format") == "sse" else SOUND_TYPES[body.get("response_format") or "mp3"]


def _with_partials(body: Body) -> None:
    """Who follows a long transcription reads the text so far."""
    if "file" in body:
        body["stream"] = True


def _whole(body: Body) -> None:
    """Speech that nobody listens to while it is made is one file."""
    body.pop("stream_format", None)


def _pure(body: Body) -> bool:
    return not body.get("stream")


SPEECH = Endpoint(
    path="audio/speech",
    takes=("tts",),
    table=SPEECH_TABLE,
    units=_said,
    admit=_admit_said,
    files=_reference,
    uploads={"reference_audio": FileKind.AUDIO},
    answer=Answer.FILE,
    unattended=_whole,
    streams=lambda body: True,
    stream_type=_sound_type,
)
TRANSCRIPTIONS = Endpoint(
    path="audio/transcriptions",
    takes=("asr",),
    table=TRANSCRIPTION_TABLE,
    units=_heard,
    admit=_admit_heard,
    files=_sources,
    uploads={"file": FileKind.AUDIO, "files": FileKind.AUDIO},
    unattended=_with_partials,
    cached=_pure,
)
TRANSLATIONS = Endpoint(
    path="audio/translations",
    takes=("asr",),
    table=TRANSLATION_TABLE,
    units=_heard,
    admit=_admit_heard,
    files=_sources,
    uploads={"file": FileKind.AUDIO, "files": FileKind.AUDIO},
    cached=_pure,
    offered=True,
)
