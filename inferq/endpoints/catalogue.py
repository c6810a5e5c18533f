"""`models/pull`: brings a model here, as a long job of inferq's own."""

from typing import Any

from inferq import errors
from inferq.config import ModelSettings
from inferq.config.settings import PULL_MODEL
from inferq.endpoints.endpoint import Body, Endpoint, Files
from inferq.endpoints.fields import ARRAY, OBJECT, STRING, Field, wrong_type
from inferq.endpoints.gateway import GATEWAY
from inferq.sources import check_digest, check_name, check_revision, parse_source

_MOST = 1000


def _source(value: str, path: str) -> None:
    try:
        parse_source(value)
    except ValueError as error:
        raise errors.InvalidRequest(f"Invalid '{path}': {error}.", param=path) from error


def _name(value: str, path: str) -> None:
    try:
        check_name(value)
    except ValueError as error:
        raise errors.InvalidRequest(f"Invalid '{path}': {error}.", param=path) from error


def _revision(value: str, path: str) -> None:
    try:
        check_revision(value)
    except ValueError as error:
        raise errors.InvalidRequest(f"Invalid '{path}': {error}.", param=path) from error


def _patterns(value: list[Any], path: str) -> None:
    if not value or len(value) > _MOST:
        raise errors.InvalidRequest(f"Invalid '{path}': give 1 to {_MOST} texts.", param=path)
    for index, item in enumerate(value):
        if not isinstance(item, str) or not item:
            raise wrong_type(f"{path}[{index}]", (STRING,), item)


def _digests(value: Any, path: str) -> None:
    for item in value.values() if isinstance(value, dict) else (value,):
        try:
            check_digest(item)
        except ValueError as error:
            raise errors.InvalidRequest(f"Invalid '{path}': {error}.", param=path) from error


TABLE = {
    "source": Field(
        types=(STRING,),
        required=True,
        doc="`org/name` or `hf:org/name`, `modelscope:org/name`, an `https://` URL of one file, or a folder of the "
        "server (`/folder`).",
        check=_source,
    ),
    "name": Field(
        types=(STRING,), doc="Folder below `models/`; by default the last part of the source.", check=_name
    ),
    "revision": Field(types=(STRING,), doc="Branch, tag or commit of a hub's model.", check=_revision),
    "files": Field(types=(ARRAY,), doc="Only these files, by their exact paths.", check=_patterns),
    "include": Field(
        types=(ARRAY,), doc="Only files that match one of these patterns, such as `*.json`.", check=_patterns
    ),
    "exclude": Field(
        types=(ARRAY,), doc="No files that match one of these patterns, such as `*.bin`.", check=_patterns
    ),
    "sha256": Field(
        types=(STRING, OBJECT),
        doc="Checksum of the one file, or checksums by path; must agree with the hub's.",
        check=_digests,
    ),
    **GATEWAY,
}


def _one(_body: Body, _model: ModelSettings, _files: Files) -> float:
    """How many bytes a source has is not known before it is asked."""
    return 1.0


PULL = Endpoint(
    path="models/pull",
    takes=("pull",),
    table=TABLE,
    units=_one,
    long=True,
    built_in=PULL_MODEL,
    admin=True,
)
