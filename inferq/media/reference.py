"""What a caller may write where a file is meant, parsed once into one of three things. Pure.

1. `data:` URL, or bare base64 where an endpoint takes that: the bytes themselves (`Inline`).
2. `artifact:` and an id, the bare id, or a link to an artifact at a place that is ours: a file that is
   here (`Stored`).
3. `https:` or `http:` URL: a file elsewhere (`Remote`). What is allowed there is for `inferq.media.fetch` to say.
"""

import binascii
import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any
from urllib.parse import unquote_to_bytes

from yarl import URL

from inferq import errors

LONGEST_URL = 8192
"""Characters; longer ones are data that somebody put into a URL."""

_ARTIFACT = re.compile(r"(?:artifact:)?([0-9a-f]{64})")
_OUR_PATH = re.compile(r"(?:/.*)?/v1/artifacts/([0-9a-f]{64})")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]*:[0-9a-f:.]*")
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f-\x9f\\\s]")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_CREDENTIALS = re.compile(r"[a-z]+:/*[^/?#]*@", re.IGNORECASE)
_BASE64_SPACE = b" \t\n\f\r"


@dataclass(frozen=True, slots=True)
class Inline:
    """Bytes that came with the request, and the media type their sender claims."""

    data: bytes
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Remote:
    """A URL without credentials and fragment, http or https. Its host may be anything, private ones too."""

    url: URL


@dataclass(frozen=True, slots=True)
class Stored:
    """The sha256 of an artifact; nobody has looked whether there is one."""

    sha256: str


Reference = Inline | Remote | Stored


def parse(
    value: Any, *, param: str, limit: int, raw_base64: bool = False, ours: Collection[str] = ()
) -> Reference:
    """What `value`, the field `param` of a request, refers to. `limit` bounds inline data in bytes.

    `raw_base64`: text that is nothing else is decoded. `ours` are the places, as `place_of` writes them, whose links
    to artifacts are links to what is here. Raises InvalidRequest.
    """
    if not isinstance(value, str) or not value:
        raise errors.InvalidRequest(f"Invalid '{param}': expected a URL or an artifact's id.", param=param)
    if found := _ARTIFACT.fullmatch(value):
        return Stored(found[1])
    scheme = _SCHEME.match(value)
    match scheme[1].lower() if scheme else None:
        case "data":
            return _data(value, param, limit)
        case "https" | "http":
            url = remote_url(value, param)
            link = _OUR_PATH.fullmatch(url.raw_path) if url.host_port_subcomponent in ours else None
            return Stored(link[1]) if link else Remote(url)
        case None if raw_base64:
            return Inline(_base64(value.encode("utf-8", "replace"), param, limit))
        case "artifact":
            raise errors.InvalidRequest(
                f"Invalid '{param}': an artifact's id has 64 hexadecimal digits in lower case.", param=param
            )
    legal = "a data: URL, an https:// URL or artifact:<id>" + (", or base64" if raw_base64 else "")
    raise errors.InvalidRequest(f"Invalid '{param}': expected {legal}.", param=param)


def place_of(url: str) -> str | None:
    """Host and port of a URL, the port left out where it is the scheme's; None for what is no URL."""
    try:
        return URL(url).host_port_subcomponent
    except ValueError:
        return None


def remote_url(text: str, param: str) -> URL:
    """The one parse of a URL: what is checked later and what is connected to is this object. Raises InvalidRequest.

    Refused: spaces, control characters and backslashes, which parsers disagree on; credentials; hosts that are
    neither a name nor an address in its usual spelling, because resolvers read `127.1`, `0x7f000001` and `2130706433`
    as addresses too.
    """

    def refused(why: str) -> errors.InvalidRequest:
        return errors.InvalidRequest(f"Invalid URL in '{param}': {why}.", param=param)

    if len(text) > LONGEST_URL:
        raise refused(f"it is longer than {LONGEST_URL} characters")
    if _NOT_IN_URL.search(text):
        raise refused("it has spaces, control characters or backslashes in it")
    try:
        url = URL(text).with_fragment(None)
        host, port = (url.raw_host or "").lower(), url.port
    except (ValueError, UnicodeError):
        raise refused("it cannot be read") from None
    if url.scheme not in ("http", "https"):
        raise refused("only https:// and http:// can be fetched")
    if _CREDENTIALS.match(text):
        raise refused("it must not carry a user or a password")
    if not _HOST.fullmatch(host) or len(host) > 253 or not port:
        raise refused("its host or port cannot be read")
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) and not _is_ipv4(host):
        raise refused("its host is a number, but not an address in its usual spelling")
    return url


def _is_ipv4(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


def _data(text: str, param: str, limit: int) -> Inline:
    head, comma, payload = text[len("data:") :].partition(",")
    if not comma or len(head) > 256:
        raise errors.InvalidRequest(f"Invalid data URL in '{param}': it has no comma.", param=param)
    media_type, *parameters = head.split(";")
    if media_type and not _MEDIA_TYPE.fullmatch(media_type):
        raise errors.InvalidRequest(
            f"Invalid data URL in '{param}': its media type cannot be read.", param=param
        )
    # A percent sign makes three characters of one byte, so more text than that cannot fit.
    _bounded(len(payload) // 3, limit, param)
    raw = payload.encode("utf-8", "replace")
    raw = unquote_to_bytes(raw) if b"%" in raw else raw
    base64 = bool(parameters) and parameters[-1].strip().lower() == "base64"
    if not base64:
        _bounded(len(raw), limit, param)
    return Inline(_base64(raw, param, limit) if base64 else raw, media_type.lower() or None)


def _base64(text: bytes, param: str, limit: int) -> bytes:
    """WHATWG's forgiving base64: white space is skipped and padding may be missing."""
    text = text.translate(None, _BASE64_SPACE)
    if len(text) % 4 == 0:
        text = text.removesuffix(b"=").removesuffix(b"=")
    _bounded(len(text) * 3 // 4, limit, param)
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    except binascii.Error:
        raise errors.InvalidRequest(f"Invalid '{param}': its base64 cannot be read.", param=param) from None


def _bounded(size: int, limit: int, param: str) -> None:
    if size > limit:
        raise errors.InvalidRequest(
            f"The data in '{param}' is larger than {limit} bytes, the limit of this server.", param=param
        )
