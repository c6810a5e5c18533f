"""Links to artifacts that open without a key until they expire, as `data[].url` of pictures and videos."""

import time
from collections.abc import Callable

from starlette.requests import Request

from api.context import context_of, text_header
from inferq import errors
from inferq.media import links

_LOCAL = "127.0.0.1"


def linker(request: Request) -> Callable[[str], str]:
    """Makes the absolute link of an artifact, for the caller of this request."""
    context = context_of(request)
    base = context.settings.api.public_url or _base(request)

    def link(sha256: str) -> str:
        expires = int(time.time() + context.settings.api.link_ttl)
        query = links.sign(sha256, expires, context.link_secret)
        return f"{base.rstrip('/')}/v1/artifacts/{sha256}?{query}"

    return link


def _base(request: Request) -> str:
    """Where the caller reached this server. It goes back to nobody but the one who wrote it."""
    settings = context_of(request).settings.api
    host = text_header(request.scope, b"host") or f"{_LOCAL}:{settings.port}"
    return f"{request.scope.get('scheme', 'http')}://{host}"


def opened_by_link(request: Request) -> bool:
    """Whether a request came by a signed link that has not expired. Raises Forbidden for one that was changed."""
    query = request.query_params
    if "signature" not in query:
        return False
    if not links.verify(request.path_params["sha256"], query, context_of(request).link_secret):
        raise errors.Forbidden(
            "This link has expired, or it was changed; ask for the job again to get a new one."
        )
    return True
