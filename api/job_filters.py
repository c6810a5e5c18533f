"""The query of `GET /v1/jobs`: which filters there are, what they may say."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from api.operations import parameter
from inferq import errors
from inferq.job import JobState
from inferq.lanes import Lane

LARGEST_PAGE = 200
_PAGE = 50
_LONGEST_TEXT = 256


def _choice(kind: type[JobState] | type[Lane]) -> Callable[[str, str], Any]:
    def read(name: str, text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise errors.InvalidRequest(
                f"Invalid value for '{name}': {text!r}. Legal values: {', '.join(kind)}.", param=name
            ) from None

    return read


def _limit(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= LARGEST_PAGE:
        raise errors.InvalidRequest(
            f"'{name}' must be a number from 1 to {LARGEST_PAGE}, not {text[:40]!r}.", param=name
        )
    return int(text)


def _text(name: str, text: str) -> str:
    if len(text) > _LONGEST_TEXT:
        raise errors.InvalidRequest(f"'{name}' is longer than {_LONGEST_TEXT} characters.", param=name)
    if "\0" in text:
        # PostgreSQL has no text with it.
        raise errors.InvalidRequest(f"'{name}' holds a NUL character.", param=name)
    return text


_READERS: dict[str, Callable[[str, str], Any]] = {
    "state": _choice(JobState),
    "model": _text,
    "lane": _choice(Lane),
    "source": _text,
    "tenant": _text,
    "cursor": _text,
    "limit": _limit,
}

PARAMETERS = [
    parameter("query", "state", "Only jobs in this state.", {"type": "string", "enum": list(JobState)}),
    parameter("query", "model", "Only jobs of this model."),
    parameter("query", "lane", "Only jobs of this lane.", {"type": "string", "enum": list(Lane)}),
    parameter("query", "source", "Only jobs that came from there, for instance `api`."),
    parameter("query", "tenant", "Only jobs of this tenant, for keys that see all."),
    parameter("query", "cursor", "`next_cursor` of the page before."),
    parameter(
        "query",
        "limit",
        "Jobs per page.",
        {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": _PAGE},
    ),
]


def page_of(request: Request) -> dict[str, Any]:
    """`cursor` and `limit` alone, for lists without filters."""
    found: dict[str, Any] = {"limit": _PAGE}
    for name, text in request.query_params.items():
        if name not in ("cursor", "limit"):
            raise errors.InvalidRequest(f"Unknown filter '{name}'. Legal here: cursor, limit.", param=name)
        if text:
            found[name] = _READERS[name](name, text)
    return found


def page_size(text: str | None) -> int:
    """How many entries a page of a list has. Raises InvalidRequest."""
    return _limit("limit", text) if text else _PAGE


def filters_of(request: Request) -> dict[str, Any]:
    """Arguments for `Ledger.list_jobs`. A misspelt filter is refused: ignoring it would list everything."""
    found: dict[str, Any] = {"limit": _PAGE}
    for name, text in request.query_params.items():
        reader = _READERS.get(name)
        if reader is None:
            raise errors.InvalidRequest(
                f"Unknown filter '{name}'. Legal here: {', '.join(_READERS)}.", param=name
            )
        if text:
            found[name] = reader(name, text)
    return found
