"""Reading multipart/form-data: text fields become values of a JSON-like body, files go on as they arrive.

Nothing is kept on disk or held whole: the endpoint's `on_file` takes a file's bytes while they come. Everything is
bounded: the body (`api.body`), the number of parts, their headers, the text in all fields. Knows no endpoint.
"""

import hashlib
import logging
import math
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from api.body import Body
from api.context import text_header
from api.fingerprint import Fingerprint, fingerprint_of
from inferq import errors
from inferq.endpoints.fields import ARRAY, BOOLEAN, INTEGER, NUMBER, OBJECT, STRING, Table

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_FIELDS = 128
"""Parts of a form beside the files that one request may bring."""
MOST_TEXT = 8 * 2**20
"""Bytes in all text fields together."""
MOST_HEADERS = 8
"""Of one part."""
LONGEST_HEADER = 4096

_NAME = re.compile(r"([A-Za-z0-9_.-]{1,64})(?:\[([A-Za-z0-9_.-]{0,64})\])?")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?")
_PYTHON = {BOOLEAN: (bool,), INTEGER: (int,), NUMBER: (int, float)}
_BOOLEANS = {"true": True, "false": False}
_PLAIN = (b"", b"binary", b"8bit", b"7bit")

# Every malformed form would be a line in our log, and anybody can send them.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form: its field, and what its sender says of it. `chunks` are its bytes, as they arrive."""

    field: str
    filename: str | None
    media_type: str | None
    chunks: AsyncIterator[bytes]


OnFile = Callable[[FormFile], Awaitable[Any]]
"""Takes a file, reading as much of it as it wants; what it returns is the field's value."""


def is_form(request: Request) -> bool:
    """True when the request says that its body is multipart/form-data."""
    return _content_type(request)[0] == b"multipart/form-data"


async def read_form(
    request: Request,
    table: Table,
    *,
    files: Collection[str],
    on_file: OnFile,
    limit: int,
    most_files: int,
) -> dict[str, Any]:
    """The body of a form, its text turned into what `table` says; fields without a row stay text.

    ``name`` is a single value, or one item of a list where the row says array; ``name[]`` is one item of a list;
    ``name[key]`` is one key of an object, and numbers and booleans there are read as such. `files` are the fields that
    take files; text in them is taken too, as a reference to one. `limit` bounds the whole body in bytes, `most_files`
    together with MOST_FIELDS its parts.

    Raises InvalidRequest, BodyTooLarge, BodyTooSlow, CallerLeft, and what `on_file` raises.
    """
    body = Body(request, limit)
    await body.start()
    form = _Form(table)
    try:
        parts = _Parts(body, _boundary(request), MOST_FIELDS + most_files, fingerprint_of(request))
        while (headers := await parts.next()) is not None:
            await _take(headers, parts, form, files, on_file)
        while body.more:
            await body.next()
    except errors.InferqError:
        await body.discard()
        raise
    return form.values


async def _take(
    headers: dict[bytes, bytes], parts: "_Parts", form: "_Form", files: Collection[str], on_file: OnFile
) -> None:
    options = _disposition(headers)
    name = _text(options[b"name"], "the name of a field")
    async with aclosing(parts.data()) as data:
        if b"filename" not in options:
            form.add(name, await form.read(name, data))
            return
        field = _split(name)[0]
        if field not in files:
            raise errors.InvalidRequest(f"'{field}' takes no file.", param=field)
        filename = _text(options[b"filename"], f"the file name in '{field}'")
        media_type = parse_options_header(headers.get(b"content-type", b""))[0].decode("latin-1")
        form.add(name, await on_file(FormFile(field, filename or None, media_type or None, data)))


class _Mark(Enum):
    PART_ENDED = 1
    FORM_ENDED = 2


class _Parts:
    """The parts of a form, one after the other, parsed as the body arrives."""

    def __init__(self, body: Body, boundary: bytes, most: int, fingerprint: Fingerprint | None) -> None:
        self._body = body
        self._fingerprint = fingerprint
        self._most = most
        self._events: deque[dict[bytes, bytes] | bytes | _Mark] = deque()
        self._inside = False
        self._count = 0
        self._part = hashlib.sha256()
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = b"", b""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": lambda: self._events.append(self._headers),
            "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
            "on_part_end": lambda: self._events.append(_Mark.PART_ENDED),
            "on_end": lambda: self._events.append(_Mark.FORM_ENDED),
        }
        self._parser = MultipartParser(
            boundary, callbacks, max_header_count=MOST_HEADERS, max_header_size=LONGEST_HEADER
        )

    async def next(self) -> dict[bytes, bytes] | None:
        """The headers of the next part, wherever the reading of the one before has stopped; None after the last."""
        while (event := await self._event()) is not _Mark.FORM_ENDED:
            if isinstance(event, dict):
                self._inside = True
                return event
        return None

    async def data(self) -> AsyncGenerator[bytes]:
        """What is left of the part, to its end."""
        while self._inside:
            event = await self._event()
            if isinstance(event, bytes):
                yield event
            else:
                self._inside = False

    async def _event(self) -> dict[bytes, bytes] | bytes | _Mark:
        while not self._events:
            if not self._body.more:
                raise errors.InvalidRequest("The form ends before its closing boundary.")
            piece = await self._body.next()
            try:
                self._parser.write(piece)
            except FormParserError as error:
                raise _malformed(error) from error
        event = self._events.popleft()
        if self._fingerprint is not None:
            self._note(event, self._fingerprint)
        return event

    def _note(self, event: dict[bytes, bytes] | bytes | _Mark, fingerprint: Fingerprint) -> None:
        """Each part by itself: a form that is sent again has another boundary and comes in other pieces."""
        if isinstance(event, bytes):
            self._part.update(event)
        elif isinstance(event, dict):
            self._part = hashlib.sha256()
            for header in sorted(event.items()):
                fingerprint.add(*header)
        else:
            fingerprint.add(self._part.digest())

    def _begin(self) -> None:
        self._count += 1
        if self._count > self._most:
            raise errors.InvalidRequest(f"The form has more than {self._most} parts.")
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        name = self._header.lower()
        if name in self._headers:
            raise errors.InvalidRequest("The form cannot be read: a part has the same header twice.")
        self._headers[name] = self._value.strip()
        self._header, self._value = b"", b""


class _Form:
    """The values so far, and the room that is left for text."""

    def __init__(self, table: Table) -> None:
        self.values: dict[str, Any] = {}
        self._table = table
        self._room = MOST_TEXT

    async def read(self, name: str, data: AsyncIterator[bytes]) -> Any:
        """The value of a text field."""
        parts = []
        async for part in data:
            self._room -= len(part)
            if self._room < 0:
                raise errors.InvalidRequest(
                    f"The text fields of the form are larger than {MOST_TEXT} bytes together."
                )
            parts.append(part)
        field, key = _split(name)
        text = _text(b"".join(parts), f"the value of '{field}'", field)
        if key is None:
            return _value(text, field, self._row_types(field) or (STRING,))
        return _guess(text) if key else text

    def add(self, name: str, value: Any) -> None:
        """Put a value where its name says. Raises InvalidRequest for a second one where one is legal.

        1. ``name[key]``. 2. ``name[]``, or a row that says array and not text. 3. The first one of a name. 4. Another
        one where the row says array too: then it is a list after all.
        """
        field, key = _split(name)
        legal = self._row_types(field)
        found = self.values.get(field)
        if key:
            if not isinstance(found, dict | None) or key in (found or {}):
                raise _repeated(name)
            self.values.setdefault(field, {})[key] = value
        elif key == "" or (ARRAY in legal and STRING not in legal and not isinstance(value, list)):
            if not isinstance(found, list | None):
                raise _repeated(name)
            self.values.setdefault(field, []).append(value)
        elif field not in self.values:
            self.values[field] = value
        elif ARRAY in legal and not isinstance(value, list):
            self.values[field] = [*(found if isinstance(found, list) else [found]), value]
        else:
            raise _repeated(name)

    def _row_types(self, field: str) -> tuple[str, ...]:
        row = self._table.get(field)
        return row.types if row is not None else ()


def _repeated(name: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"'{name}' is given more than once.", param=name.partition("[")[0])


def _value(text: str, field: str, types: tuple[str, ...]) -> Any:
    """What a text means in a field of these types.

    1. Text, where that is legal or nothing is known. 2. A JSON array, or one item of a list. 3. A JSON object.
    4. A boolean, an integer or a number. Nothing else is legal.
    """
    if STRING in types:
        return text
    if ARRAY in types:
        return _json(text, list, field) if text.lstrip().startswith("[") else text
    if OBJECT in types:
        return _json(text, dict, field)
    found = _guess(text)
    if any(type(found) in _PYTHON[name] for name in types):
        return found
    raise errors.InvalidRequest(f"Invalid value for '{field}': expected {' or '.join(types)}.", param=field)


def _guess(text: str) -> Any:
    """A boolean or a number where the text looks like one, else the text."""
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def _json(text: str, kind: type, field: str) -> Any:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, kind):
        wanted = "array" if kind is list else "object"
        raise errors.InvalidRequest(f"Invalid value for '{field}': expected a JSON {wanted}.", param=field)
    return found


def _split(name: str) -> tuple[str, str | None]:
    """A field's name and what stands in brackets behind it: None without brackets."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise errors.InvalidRequest("A field of the form has a name that no field has.")
    return match[1], match[2]


def _disposition(headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    kind, options = parse_options_header(headers.get(b"content-disposition", b""))
    if kind != b"form-data" or b"name" not in options:
        raise errors.InvalidRequest("The form cannot be read: a part does not say which field it is.")
    if headers.get(b"content-transfer-encoding", b"").lower() not in _PLAIN:
        raise errors.InvalidRequest("The form cannot be read: a part is encoded; send its bytes as they are.")
    return options


def _text(data: bytes, what: str, param: str | None = None) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise errors.InvalidRequest(f"The form cannot be read: {what} is not UTF-8.", param=param) from None


def _content_type(request: Request) -> tuple[bytes, dict[bytes, bytes]]:
    return parse_options_header(text_header(request.scope, b"content-type"))


def _boundary(request: Request) -> bytes:
    kind, options = _content_type(request)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:
        raise errors.InvalidRequest(
            "Expected multipart/form-data with a boundary of at most 70 characters.", param="Content-Type"
        )
    return boundary


def _malformed(error: FormParserError) -> errors.InvalidRequest:
    if "Maximum header" in str(error):
        return errors.InvalidRequest("The form cannot be read: a part has too many or too long headers.")
    return errors.InvalidRequest(
        "The form cannot be read: its boundary is not the one of Content-Type, or a part's headers are malformed."
    )
