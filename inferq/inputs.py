"""Results of other jobs as parts of a request: the notation, where a body has it, and what stands there then. Pure.

A text that is nothing but ``{{jobs.WHICH}}`` or ``{{jobs.WHICH.PATH}}`` stands for a result. WHICH is a job's id, or
its place in the job's `depends_on`, from 0. PATH is names and list indexes with dots between them, such as
``choices.0.message.content``; without one it is the whole result: JSON, text, or ``artifact:`` and the id of a file.
Text that only has such a notation inside is left alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from inferq import errors
from inferq.job import Job, JobState

MOST_PLACES = 1000
"""Places in one body."""

_START, _END = "{{jobs.", "}}"
_SHOWN = 200
_KEYS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Place:
    """`holder[key]` stands for a part (`path`) of the result of a job. `param` is what its caller calls it."""

    holder: Any
    key: str | int
    param: str
    job_id: str
    path: tuple[str, ...]


def is_place(value: Any) -> bool:
    """Whether a value of a body stands for a result."""
    return isinstance(value, str) and value.startswith(_START) and value.endswith(_END)


def asks_for_results(body: bytes) -> bool:
    """Whether a body may have such places, at a glance: their text may also stand inside other text."""
    return _START.encode() in body


def places(body: Any, depends_on: Sequence[str]) -> list[Place]:
    """All places of a body. Raises InvalidRequest for one that names a job which the request does not wait for, and for
    more than MOST_PLACES.
    """
    found: list[Place] = []
    for holder, key, param in _texts(body):
        if not is_place(holder[key]):
            continue
        if len(found) == MOST_PLACES:
            raise errors.InvalidRequest(
                f"The request takes parts of results in more than {MOST_PLACES} places.", param=param
            )
        found.append(Place(holder, key, param, *_parsed(holder[key], param, depends_on)))
    return found


def _texts(body: Any) -> Iterator[tuple[Any, str | int, str]]:
    """Every text of a body. No recursion: JSON may be nested deeper than the interpreter's stack."""
    stack: list[tuple[Any, str]] = [(body, "")]
    while stack:
        holder, path = stack.pop()
        items = list(holder.items() if isinstance(holder, dict) else enumerate(holder))
        for key, value in reversed(items):
            param = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".lstrip(".")
            if isinstance(value, dict | list):
                stack.append((value, param))
            elif isinstance(value, str):
                yield holder, key, param


def _parsed(text: str, param: str, depends_on: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    which, *path = text[len(_START) : -len(_END)].split(".")
    shown = text[:_SHOWN]
    if "" in path:
        raise errors.InvalidRequest(
            f"Invalid '{param}': the path in {shown!r} has an empty part.", param=param
        )
    if which in depends_on:
        return which, tuple(path)
    if which.isascii() and which.isdigit() and len(which) < 4 and int(which) < len(depends_on):
        return depends_on[int(which)], tuple(path)
    raise errors.InvalidRequest(
        f"Invalid '{param}': {shown!r} names no job in 'depends_on'; write its id or its place there, from 0.",
        param=param,
    )


def needs_file(job: Job, path: Sequence[str]) -> bool:
    """Whether the part is inside a result that lies in a file."""
    return bool(path) and job.result is None and job.artifact is not None and _is_json(job.result_type)


def fill(places: Sequence[Place], job: Job, file: bytes | None = None, *, room: int) -> int:
    """Put parts of a job's result into their places; how many bytes of JSON these are together. What stands in several
    places is one object. `file` are the bytes of the job's artifact, where one of the places `needs_file`.

    Raises InvalidRequest naming the place, also once they come to more than `room` bytes.
    """
    result, sizes, total = Result(job, file), dict[tuple[str, ...], int](), 0
    for place in places:
        try:
            value = result.part(place.path)
            if place.path not in sizes:
                sizes[place.path] = _size(value)
        except errors.InvalidRequest as error:
            raise errors.InvalidRequest(error.message, param=place.param) from error
        total += sizes[place.path]
        if total > room:
            raise errors.InvalidRequest(
                "With its inputs the request is larger than requests may be.", param=place.param
            )
        place.holder[place.key] = value
    return total


class Result:
    """What a job has brought; read once, however many parts of it are asked for."""

    def __init__(self, job: Job, file: bytes | None = None) -> None:
        self._job = job
        self._data = job.result if file is None else file

    def part(self, path: Sequence[str]) -> Any:
        """Raises InvalidRequest when there is none."""
        job, data = self._job, self._data
        if job.state is not JobState.SUCCEEDED:
            raise errors.InvalidRequest(f"Job {job.id} is {job.state} and has no result.")
        if job.result is None and job.artifact and not path:
            return f"artifact:{job.artifact}"
        if data is None:
            kept = f"is a file of {job.result_type}, which has no parts" if job.artifact else "was not kept"
            raise errors.InvalidRequest(f"The result of job {job.id} {kept}.")
        if _is_json(job.result_type):
            return _walk(self._read, path, job.id)
        if path:
            raise errors.InvalidRequest(
                f"The result of job {job.id} is {job.result_type}, which has no parts."
            )
        return data.decode("utf-8", "replace")

    @cached_property
    def _read(self) -> Any:
        try:
            return orjson.loads(self._data or b"")
        except orjson.JSONDecodeError as error:
            raise errors.InvalidRequest(f"The result of job {self._job.id} is no JSON.") from error


def _size(value: Any) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError as error:  # it reads deeper nesting than it writes
        raise errors.InvalidRequest(f"The result cannot be passed on: {error}.") from error


def _walk(value: Any, path: Sequence[str], job_id: str) -> Any:
    for index, step in enumerate(path):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(value):
            value = value[int(step[:9])]
        else:
            where = ".".join(path[:index])[:_SHOWN] or "its top"
            raise errors.InvalidRequest(
                f"The result of job {job_id} has no {step[:_SHOWN]!r} at {where}, but {_content(value)}."
            )
    return value


def _content(value: Any) -> str:
    if isinstance(value, Mapping):
        names = ", ".join(str(name) for name in list(value)[:_KEYS_SHOWN])
        return f"an object with {names}" if names else "an empty object"
    return f"a list of {len(value)}" if isinstance(value, list) else "no object and no list"


def _is_json(media_type: str) -> bool:
    return media_type.startswith("application/json")
