"""What a request asks, as a digest: its method, its path with the model that a proxy's path names, its body as it was
received. Only for requests with a key.

The body is counted while it is read, so nothing of it is held for this.
"""

import hashlib

from starlette.requests import Request

from api.context import text_header
from inferq import errors
from inferq.request import Proxy

LONGEST_KEY = 255


class Fingerprint:
    """The key that a request carries, and the digest of what has been read of the request so far."""

    def __init__(self, key: str, method: str, path: str) -> None:
        self.key = key
        self._digest = hashlib.sha256()
        self.add(method.encode(), path.encode())

    def add(self, *pieces: bytes) -> None:
        """Each with its length before it: no other pieces come to the same digest."""
        for piece in pieces:
            self._digest.update(len(piece).to_bytes(8, "big"))
            self._digest.update(piece)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def fingerprint_of(request: Request) -> Fingerprint | None:
    """The request's, made when it is first asked for; None without `Idempotency-Key`. Raises InvalidRequest."""
    key = text_header(request.scope, b"idempotency-key")
    if key is None:
        return None
    found: Fingerprint | None = request.scope.get("fingerprint")
    if found is None:
        if not 0 < len(key) <= LONGEST_KEY or not (key.isascii() and key.isprintable()):
            raise errors.InvalidRequest(
                f"Idempotency-Key must have 1 to {LONGEST_KEY} printable ASCII characters.",
                param="Idempotency-Key",
            )
        found = request.scope["fingerprint"] = Fingerprint(key, request.method, request.scope["path"])
        proxy: Proxy | None = request.scope.get("proxy")
        if proxy is not None:
            found.add(proxy.model.encode(), str(proxy.context).encode())
    return found
