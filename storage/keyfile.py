"""The file that holds the first admin key, for whoever installed the system. It must not know SQL."""

import contextlib
import os
import tempfile
from pathlib import Path

from inferq import errors
from storage.systemerrors import first_line


def read_key(file: Path) -> str | None:
    """The key in `file`, or None when it is missing or empty. Raises StoreUnavailable."""
    try:
        return file.read_text("utf-8", "replace").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.StoreUnavailable(f"cannot read {file}: {first_line(error)}") from error


def write_key(file: Path, plaintext: str) -> None:
    """Put the key into `file`, mode 600, at once or not at all. Raises StoreUnavailable."""
    try:
        _write(file, plaintext)
    except OSError as error:
        raise errors.StoreUnavailable(f"cannot write {file}: {first_line(error)}") from error


def _write(file: Path, plaintext: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp: a new name, mode 600 from its first moment.
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(plaintext + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
