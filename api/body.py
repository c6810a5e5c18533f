"""Reading a request's body: bounded while it arrives, then JSON. Knows no endpoint and no field."""

import asyncio
import contextlib
from typing import Any

import orjson
from starlette.requests import Request

from api.context import context_of, headers_of
from api.departure import CallerLeft
from inferq import errors

SILENCE = 30.0
"""Seconds without a byte after which a body counts as broken off."""
LONGEST = 600.0
"""Seconds in which a whole body has to come."""
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 64 * 2**20


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises BodyTooLarge, BodyTooSlow, InvalidRequest, CallerLeft."""
    return parse_object(await read_bytes(request, context_of(request).settings.api.max_body))


async def read_bytes(request: Request, limit: int) -> bytes:
    """The whole body, refused by its declared length before it is read, and by its real one while it is read.

    Raises BodyTooLarge, BodyTooSlow, InvalidRequest, CallerLeft.
    """
    headers = headers_of(request.scope)
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        # A client that waits for "100 Continue" has sent nothing yet, and reading would ask it to.
        if b"expect" not in headers:
            await _discard(request)
        raise _too_large(limit)
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise errors.InvalidRequest("Compressed request bodies are not accepted.", param="Content-Encoding")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LONGEST
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        try:
            async with asyncio.timeout_at(min(loop.time() + SILENCE, deadline)):
                message = await request.receive()
        except TimeoutError:
            raise errors.BodyTooSlow(
                f"The request body did not come: no part of it for {SILENCE:g} s, or not all within {LONGEST:g} s."
            ) from None
        if message["type"] == "http.disconnect":
            raise CallerLeft
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            if message.get("more_body", False):
                await _discard(request)
            raise _too_large(limit)
        parts.append(part)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def parse_object(raw: bytes) -> dict[str, Any]:
    if not raw:
        raise errors.InvalidRequest("The request has no body; send a JSON object.")
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise errors.InvalidRequest(f"The request body is not valid JSON: {error}.") from error
    if not isinstance(parsed, dict):
        raise errors.InvalidRequest("The request body must be a JSON object.")
    return parsed


async def _discard(request: Request) -> None:
    """Read on for a moment and keep nothing.

    Closing a connection on which bytes still arrive resets it, and the client would see that instead of the 413.
    """
    size, more = 0, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while more and size < _LINGER_BYTES:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise CallerLeft
                size += len(message.get("body", b""))
                more = message.get("more_body", False)


def _too_large(limit: int) -> errors.BodyTooLarge:
    return errors.BodyTooLarge(f"The request body is larger than {limit} bytes, the limit of this server.")
