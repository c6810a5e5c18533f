"""Where a model can be pulled from, how it may be called here, and which paths a hub may name. Pure.

All of it is written by somebody else: an administrator's client, or a hub that may be hostile. Raises ValueError with
a message that begins in the middle of a sentence.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUB_ID = re.compile(rf"{_PART}/{_PART}")
_OLD_HUB_ID = re.compile(_PART)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_LONGEST_PATH = 1024
_LONGEST_PART = 200
"""A file system takes 255 bytes of a name."""


class Kind(StrEnum):
    HUGGINGFACE = "hf"
    MODELSCOPE = "modelscope"
    URL = "url"
    FOLDER = "folder"


_PREFIXES = {
    "hf": Kind.HUGGINGFACE,
    "huggingface": Kind.HUGGINGFACE,
    "modelscope": Kind.MODELSCOPE,
    "ms": Kind.MODELSCOPE,
}


@dataclass(frozen=True, slots=True)
class Source:
    """`value` is a hub's id, a URL, or an absolute path."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        """For records: a URL's query may hold a signature, so it is left out."""
        if self.kind is Kind.URL:
            return self.value.partition("?")[0]
        return self.value if self.kind is Kind.FOLDER else f"{self.kind}:{self.value}"

    @property
    def name(self) -> str:
        """What the model is called when nobody says it. Raises ValueError where that makes no name."""
        path = unquote(urlsplit(self.value).path) if self.kind is Kind.URL else self.value
        return check_name(path.rstrip("/").rpartition("/")[2])


def parse_source(text: str) -> Source:
    """Read `org/name`, `hf:...`, `modelscope:...`, a URL of one file, `/folder` or `file:///folder`."""
    prefix, colon, rest = text.partition(":")
    if any(ord(char) < 32 or char == "\x7f" for char in text):
        raise ValueError("it has control characters")
    if colon and prefix in _PREFIXES:
        kind = _PREFIXES[prefix]
        if _HUB_ID.fullmatch(rest) or (kind is Kind.HUGGINGFACE and _OLD_HUB_ID.fullmatch(rest)):
            return Source(kind, rest)
        raise ValueError(f"{rest!r} is no id such as org/name")
    if prefix in ("http", "https"):
        return _url(text)
    if text.startswith("/"):
        return _folder(text)
    if prefix == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ValueError("a file: URL names no host")
        return _folder(unquote(parts.path))
    if _HUB_ID.fullmatch(text):
        return Source(Kind.HUGGINGFACE, text)
    raise ValueError(f"{text[:200]!r}; write org/name, modelscope:org/name, an https:// URL or /folder")


def _url(text: str) -> Source:
    parts = urlsplit(text)
    if not parts.hostname:
        raise ValueError("the URL has no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must not hold a user or a password; jobs are kept and shown")
    try:
        parts.port  # noqa: B018  # looking at it checks it
    except ValueError as error:
        raise ValueError("the URL's port is no number up to 65535") from error
    return Source(Kind.URL, text.partition("#")[0])


def _folder(path: str) -> Source:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/") or not path.strip("/"):
        raise ValueError("a folder is an absolute path without '..'")
    return Source(Kind.FOLDER, path.rstrip("/"))


def check_name(name: str) -> str:
    """A folder's name below `models/`: letters, digits, '.', '_', '-', not beginning with a dot."""
    if not _OLD_HUB_ID.fullmatch(name):
        raise ValueError(
            f"{name[:100]!r} cannot be a model's folder: up to 96 letters, digits, '.', '_' and '-', a letter or "
            "digit first"
        )
    return name


def check_revision(revision: str) -> str:
    if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision:
        raise ValueError(f"{revision[:100]!r} is no branch, tag or commit")
    return revision


def check_digest(digest: object) -> str:
    """A SHA-256 as 64 hexadecimal digits, in small letters."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError("a SHA-256 has 64 hexadecimal digits")
    return digest.lower()


def check_path(path: object) -> str:
    """A path that a hub gives to a file of a model: relative, plain, and inside of the model's folder."""
    if not isinstance(path, str) or not path or len(path.encode(errors="replace")) > _LONGEST_PATH:
        raise ValueError("a path is no text, is empty or is too long")
    parts = path.split("/")
    plain = all(
        part not in ("", ".", "..") and len(part.encode(errors="replace")) <= _LONGEST_PART for part in parts
    )
    if not plain or "\\" in path or not path.isprintable() or str(PurePosixPath(path)) != path:
        raise ValueError(f"{path[:200]!r} is no path inside of a model")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path[:200]!r} is no text") from None
    return path
