"""Signed links to artifacts: whoever has one may download that artifact until it expires, without a key. Pure, but for
the loader of the secret.
"""

import hmac
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from inferq import errors, secretfile

FILE = "links.key"
"""The secret's file in INFERQ_HOME."""
SHORTEST_SECRET = 32
"""Characters."""


def sign(sha256: str, expires: int, secret: bytes) -> str:
    """The query string of a link to an artifact that ends at `expires`, in Unix seconds."""
    return f"expires={expires}&signature={_signature(sha256, expires, secret)}"


def verify(sha256: str, query: Mapping[str, str], secret: bytes, *, now: float | None = None) -> bool:
    """True when `query` was made by `sign` for this artifact and has not expired."""
    expires, signature = query.get("expires", ""), query.get("signature", "")
    # Only what `sign` writes: one spelling of a number, so that one link has one text.
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12 and str(int(expires)) == expires):
        return False
    wanted = _signature(sha256, int(expires), secret)
    # The signature first: its comparison takes the same time whatever is wrong.
    right = hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "replace"))
    return right and (time.time() if now is None else now) < int(expires)


def load_secret(home: Path, configured: str | None = None) -> bytes:
    """The configured secret, else the one in INFERQ_HOME, which is made at first use. Raises ConfigError."""
    if configured is not None:
        return configured.encode()
    file = home / FILE
    text = secretfile.load(file, lambda: secrets.token_urlsafe(32))
    if len(text) < SHORTEST_SECRET:
        raise errors.ConfigError(
            f"{file} holds less than {SHORTEST_SECRET} characters; remove it to have a new one made"
        )
    return text.encode()


def _signature(sha256: str, expires: int, secret: bytes) -> str:
    return hmac.new(secret, f"inferq artifact {sha256} {expires}".encode(), "sha256").hexdigest()
