"""Reading a request's body: bounded while it arrives, then JSON; forms are for `api.forms`. Knows no endpoint."""

import asyncio
import contextlib
from typing import Any

import orjson
from starlette.requests import Request

from api.context import context_of, headers_of
from api.departure import CallerLeft
from api.fingerprint import fingerprint_of
from inferq import errors

SILENCE = 30.0
"""Seconds without a byte after which a body counts as broken off."""
LONGEST = 600.0
"""Seconds in which a whole body has to come, and longer by what came: see SLOWEST."""
SLOWEST = 1024
"""Bytes for which a body may take another second: a large one may take hours, one that drips may not."""
LINGER_SECONDS = 2.0
"""How long, and how much, is read of what was refused, so that its sender reads the answer."""
LINGER_BYTES = 64 * 2**20


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises BodyTooLarge, BodyTooSlow, InvalidRequest, CallerLeft."""
    return parse_object(await read_bytes(request, context_of(request).settings.api.max_body))


async def read_bytes(request: Request, limit: int) -> bytes:
    """The whole body. Raises what `Body` does."""
    body = Body(request, limit)
    await body.start()
    parts: list[bytes] = []
    while body.more:
        parts.append(await body.next())
    raw = parts[0] if len(parts) == 1 else b"".join(parts)
    fingerprint = fingerprint_of(request)
    if fingerprint is not None:
        fingerprint.add(raw)
    return raw


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


class Body:
    """A request's body, piece by piece: refused by its declared length before it is read, by its real one meanwhile.

    `more` is true until its end was read. Raises BodyTooLarge, BodyTooSlow, InvalidRequest, CallerLeft.
    """

    def __init__(self, request: Request, limit: int) -> None:
        self.more = True
        self._request = request
        self._limit = limit
        self._left = limit
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + LONGEST

    async def start(self) -> None:
        """Refuse what the headers give away."""
        headers = headers_of(self._request.scope)
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._limit:
            # A client that waits for "100 Continue" has sent nothing yet, and reading would ask it to.
            if b"expect" not in headers:
                await self.discard()
            raise _too_large(self._limit)
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise errors.InvalidRequest(
                "Compressed request bodies are not accepted.", param="Content-Encoding"
            )

    async def next(self) -> bytes:
        """The next piece, which may be empty. Only while there is `more`."""
        try:
            async with asyncio.timeout_at(min(self._loop.time() + SILENCE, self._deadline)):
                message = await self._request.receive()
        except TimeoutError:
            self.more = False
            raise errors.BodyTooSlow(
                f"The request body did not come: no part of it for {SILENCE:g} s, or, after {LONGEST:g} s, "
                f"less than {SLOWEST} bytes a second."
            ) from None
        if message["type"] == "http.disconnect":
            self.more = False
            raise CallerLeft
        part: bytes = message.get("body", b"")
        self.more = message.get("more_body", False)
        self._left -= len(part)
        self._deadline += len(part) / SLOWEST
        if self._left < 0:
            await self.discard()
            raise _too_large(self._limit)
        return part

    async def discard(self) -> None:
        """Read on for a moment and keep nothing. Afterwards there is no `more`.

        Closing a connection on which bytes still arrive resets it, and the client would see that instead of the error.
        """
        size, more, self.more = 0, self.more, False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while more and size < LINGER_BYTES:
                    message = await self._request.receive()
                    if message["type"] == "http.disconnect":
                        raise CallerLeft
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)


def _too_large(limit: int) -> errors.BodyTooLarge:
    return errors.BodyTooLarge(f"The request body is larger than {limit} bytes, the limit of this server.")
