"""Addresses of Redis: what `queue.redis_url` may be, and one behind Sentinel taken apart. It connects to nothing.

Sentinel is written `sentinel://[user:password@]host[:port],host[:port].../db?master=NAME`; `sentinel_password=...` is
for the sentinels themselves.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote

SENTINEL = "sentinel://"
SCHEMES = ("redis://", "rediss://", "unix://", SENTINEL)
_PORT = 26379
_OPTIONS = {"master", "sentinel_password"}
_FORM = "Sentinel is written sentinel://host:26379,host:26379/0?master=NAME"


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Where the sentinels are, and which master they are asked for."""

    hosts: tuple[tuple[str, int], ...]
    master: str
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_password: str | None = None

    @property
    def login(self) -> dict[str, Any]:
        """What Redis itself wants to know."""
        given = {"username": self.username, "password": self.password, "db": self.db}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def sentinel_login(self) -> dict[str, Any]:
        return {"password": self.sentinel_password} if self.sentinel_password else {}

    @property
    def celery_url(self) -> str:
        """As kombu writes it: one URL per sentinel; the master's name goes into the transport's options."""
        user = quote(self.username or "", safe="")
        secret = f"{user}:{quote(self.password, safe='')}@" if self.password else ""
        return ";".join(f"{SENTINEL}{secret}{host}:{port}/{self.db}" for host, port in self.hosts)


def checked(url: str) -> str:
    """The same address. Raises ValueError."""
    if not url.startswith(SCHEMES):
        raise ValueError(f"a Redis address begins with {', '.join(SCHEMES)}")
    sentinel_of(url)
    return url


def sentinel_of(url: str) -> SentinelAddress | None:
    """The address behind Sentinel; None for any other one. Raises ValueError."""
    if not url.startswith(SENTINEL):
        return None
    rest, _, query = url.removeprefix(SENTINEL).partition("?")
    place, _, db = rest.partition("/")
    secret, _, hosts = place.rpartition("@")
    username, _, password = secret.partition(":")
    options = parse_qs(query, keep_blank_values=True)
    master = options.get("master", [""])[0]
    if not hosts or not master or options.keys() - _OPTIONS or not (db or "0").isdigit():
        raise ValueError(_FORM)
    return SentinelAddress(
        hosts=tuple(_host(each) for each in hosts.split(",")),
        master=master,
        db=int(db or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_password=options.get("sentinel_password", [None])[0],
    )


def _host(text: str) -> tuple[str, int]:
    name, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if (colon and not port.isdigit()) or not (name if colon else text).strip("[]"):
        raise ValueError(f"{text!r} is no host and port; {_FORM}")
    return (name if colon else text).strip("[]"), int(port) if colon else _PORT
