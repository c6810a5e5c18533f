"""A secret in a file of INFERQ_HOME: made at first use, complete from its first moment, readable by its owner alone."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from inferq import errors


def load(file: Path, make: Callable[[], str]) -> str:
    """The secret in `file`; of several processes that miss it, the first decides which one. Raises ConfigError."""
    try:
        return _read(file) or _create(file, make())
    except OSError as error:
        raise errors.ConfigError(f"cannot use {file}: {error.strerror}") from error


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8", "replace").strip()
    except FileNotFoundError:
        return None


def _create(file: Path, secret: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(secret + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        Path(temporary).unlink()
    return file.read_text("utf-8").strip()
