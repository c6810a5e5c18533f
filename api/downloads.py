"""Artifacts over HTTP: whole or one byte range, streamed, never shown as a page of this site."""

import re
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.context import context_of, text_header
from api.errors import render
from inferq import errors

_DIGEST = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_IMMUTABLE = 31_536_000


async def artifact_response(request: Request, digest: str) -> Response:
    """The artifact, or the part of it that `Range` asks for. Raises NotFound, StoreUnavailable."""
    store = context_of(request).storage.artifacts
    found = await store.stat(digest) if _DIGEST.fullmatch(digest) else None
    if found is None:
        raise errors.NotFound(f"There is no artifact {digest}.")
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{digest}"',
        "Cache-Control": f"private, max-age={_IMMUTABLE}, immutable",
        "Content-Disposition": f'attachment; filename="{digest[:16]}"',
        # Artifacts are other people's bytes: a browser must neither guess their type nor run them.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    asked = text_header(request.scope, b"range")
    part = byte_range(asked, found.size) if asked else None
    if part is None:
        headers["Content-Length"] = str(found.size)
        return _stream(store.open_read(digest), 200, headers, found.media_type)
    start, end = part
    if start >= end:
        unsatisfied = {"Content-Range": f"bytes */{found.size}"}
        return render(
            416, f"The artifact has {found.size} bytes.", code="range_not_satisfiable", headers=unsatisfied
        )
    headers["Content-Length"] = str(end - start)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
    return _stream(store.open_read(digest, start, end), 206, headers, found.media_type)


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of one range; None, meaning the whole, for what RFC 9110 lets a server ignore.

    1. ``a-b`` and ``a-``; 2. ``-n``, the last n bytes; 3. several ranges or nonsense: the whole. An empty part means
    that the range lies outside.
    """
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    start, last = int(match[1]), int(match[2]) if match[2] else size - 1
    if match[2] and last < start:
        return None
    return start, min(last + 1, size)


def _stream(chunks: AsyncIterator[bytes], status: int, headers: dict[str, str], media_type: str) -> Response:
    return StreamingResponse(chunks, status, headers, media_type)
