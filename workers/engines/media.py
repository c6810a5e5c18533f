"""Input files of a request: a `file:` URL below the folder that the replica shares with its engine.

The gateway fetches what callers name, and the replica puts it into that folder. So a path anywhere else can only be
somebody's attempt to read what is not his. Must not know any media format.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from workers.engines.failures import BadRequest


def local_path(value: object, param: str, folder: str | None) -> Path:
    """The file that a field names. Raises BadRequest unless it is a file in `folder`."""
    if not isinstance(value, str):
        raise BadRequest(f"Invalid type for '{param}': expected a URL.", param=param, code="invalid_type")
    parts = urlsplit(value)
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or folder is None:
        raise BadRequest(f"'{param}' does not name a file that was handed to this engine.", param=param)
    real = path.resolve()
    if not real.is_relative_to(Path(folder).resolve()) or not real.is_file():
        raise BadRequest(f"'{param}' does not name a file that was handed to this engine.", param=param)
    return real
