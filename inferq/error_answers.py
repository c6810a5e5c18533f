"""From an error answer of the API back to the class of `inferq.errors` that it stands for."""

from collections.abc import Iterator
from typing import Any

import httpx2

from inferq import errors


def raise_for(response: httpx2.Response) -> None:
    """Raise what an answer with an error says; a good one is left unread."""
    if response.status_code < httpx2.codes.BAD_REQUEST:
        return
    response.read()
    try:
        payload = response.json()
    except ValueError:
        payload = {}
    raise error_of(payload, status=response.status_code, retry_after=response.headers.get("retry-after"))


def error_of(payload: Any, *, status: int, retry_after: str | None = None) -> errors.InferqError:
    """The class for an error object of the API: by its code, else by its status."""
    error = payload.get("error") if isinstance(payload, dict) else None
    fields = error if isinstance(error, dict) else {}
    kind = _BY_CODE.get(str(fields.get("code"))) or _BY_STATUS.get(status, errors.InferqError)
    try:
        seconds = float(retry_after) if retry_after else None
    except ValueError:
        seconds = None
    return kind(
        str(fields.get("message") or f"the server answered {status}"),
        param=fields.get("param"),
        retry_after=seconds,
        status=status,
    )


def _family(kind: type[errors.InferqError]) -> Iterator[type[errors.InferqError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


_BY_CODE = {kind.code: kind for kind in _family(errors.InferqError)}
_BY_STATUS: dict[int, type[errors.InferqError]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.InvalidRequest,
    408: errors.BodyTooSlow,
    409: errors.Conflict,
    413: errors.BodyTooLarge,
    415: errors.InvalidRequest,
    422: errors.InvalidRequest,
    429: errors.AtCapacity,
    502: errors.EngineError,
    503: errors.Unavailable,
    504: errors.EngineTimeout,
}
