"""What the gateway has to know of one path below /v1 that makes jobs: who serves it, its body, its size, its files."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from inferq.config import ModelSettings
from inferq.endpoints.fields import Table
from inferq.endpoints.length import Prompt

Body = dict[str, Any]


class FileKind(StrEnum):
    """What a file has to be."""

    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class FilePlace:
    """One place of a body that names a file: `holder[key]`. `param` is what its caller calls it.

    `bare` allows base64 without `data:` before it.
    """

    holder: Any
    key: str | int
    param: str
    kind: FileKind
    bare: bool = False

    @property
    def named(self) -> Any:
        return self.holder[self.key]

    def put(self, name: str) -> None:
        self.holder[self.key] = name


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What was measured of a file; None where it has no such thing. `seconds` is of sound or video."""

    media_type: str
    size: int
    width: int | None = None
    height: int | None = None
    seconds: float | None = None


Files = Mapping[str, FileFacts]
"""Facts of the files of one request by `FilePlace.param`."""


def no_files(_body: Body) -> Iterator[FilePlace]:
    return iter(())


def no_bounds(_body: Body, _model: ModelSettings, _files: Files) -> None:
    """Nothing about such a request can be too big for a model."""


def no_prompts(_body: Body, _model: ModelSettings) -> Iterator[Prompt]:
    return iter(())


def as_it_is(_body: Body, _model: ModelSettings) -> None:
    """The engine gets the body as its caller wrote it."""


def fill_in(body: Body, defaults: Mapping[str, Any], _room: int) -> None:
    """Give a body the fields that it leaves out."""
    for name, value in defaults.items():
        if value is not None and body.get(name) is None:
            body[name] = value


def never(_body: Body) -> bool:
    return False


def no_type(_body: Body) -> str | None:
    return None


def unchanged(_body: Body) -> None:
    """Nothing is different when nobody waits for the answer."""


def asks_for_events(body: Body) -> bool:
    return bool(body.get("stream"))


class Answer(StrEnum):
    """How a whole answer comes from an engine.

    BODY: as the caller gets it. PICTURES: JSON whose `data[].b64_json` become artifacts. FILE: bytes that become one.
    """

    BODY = "body"
    PICTURES = "pictures"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """`takes` are types of model; the first is the type whose jobs mean this endpoint when they name none.

    `units` is the size of the work in the model's own measure; `admit` raises InvalidRequest for what the model can
    never serve; `prompts` are what has to fit into the model's context, and `length` the names of the field that
    bounds the answer in tokens; `files` finds the files that a body names, and `uploads` are the fields of a form that
    take one; `prepare` turns what the gateway does by itself into what every engine knows; `fill` puts the configured
    defaults in, and is told how many tokens the context leaves for certain; `unattended` changes a body whose caller
    does not wait; `streams` says whether an answer comes in pieces, and `stream_type` their media type where they are
    no server-sent events; `offered` marks what only some engines have; `long` makes every call a durable job; `cached`
    says whether the same request always has the same answer; `built_in` is the model of inferq's own that serves it, so
    that callers name none; `admin` keeps it from users.
    """

    path: str
    takes: tuple[str, ...]
    table: Table
    units: Callable[[Body, ModelSettings, Files], float]
    admit: Callable[[Body, ModelSettings, Files], None] = no_bounds
    files: Callable[[Body], Iterator[FilePlace]] = no_files
    uploads: Mapping[str, FileKind] = field(default_factory=dict)
    prepare: Callable[[Body, ModelSettings], None] = as_it_is
    prompts: Callable[[Body, ModelSettings], Iterator[Prompt]] = no_prompts
    length: tuple[str, ...] = ()
    fill: Callable[[Body, Mapping[str, Any], int], None] = fill_in
    unattended: Callable[[Body], None] = unchanged
    streams: Callable[[Body], bool] = asks_for_events
    stream_type: Callable[[Body], str | None] = no_type
    answer: Answer = Answer.BODY
    offered: bool = False
    long: bool = False
    cached: Callable[[Body], bool] = never
    built_in: str | None = None
    admin: bool = False

    @property
    def counts_tokens(self) -> bool:
        """Whether `units` are tokens."""
        return self.prompts is not no_prompts
