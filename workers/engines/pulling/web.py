"""GET requests to hubs and to wherever they redirect, without lending anybody our place in the network.

1. What the operator configured (the hubs, `allow_hosts`) is trusted: any address, plain http where it says so.
2. Every other host is reached over https, and only at public addresses. The guard sits where sockets are made, so no
   redirect, cache or second look-up of a name gets past it.
3. A hub's token goes to that hub alone, never along with a redirect. No cookies, no proxy, no credentials of `.netrc`.

Must not know what is fetched.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from ipaddress import ip_address
from typing import Any

import aiohttp
from yarl import URL

from inferq.media.addresses import is_public
from workers.engines import encoding
from workers.engines.pulling.troubles import CannotPull, Passing

REDIRECTS = 5
CONNECT_S = 20.0
LONGEST_JSON = 64 * 2**20
_REDIRECT = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429})
_LONGEST_WAIT = 60.0
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "inferq"}


class NotPublic(OSError):
    """A socket was asked for an address of somebody's inside."""


class Web:
    """`hubs` maps the address of each hub to the headers that let us in; `allowed` are hosts, or host:port, that are
    trusted besides. `stall_s` is how long a server may send nothing.
    """

    def __init__(
        self, hubs: Mapping[str, Mapping[str, str]], allowed: list[str], *, connections: int, stall_s: float
    ) -> None:
        """Raises CannotPull for the address of a hub that is none."""
        self._credentials = {str(_read(base).origin()): headers for base, headers in hubs.items()}
        self._trusted = {_host(_read(base)) for base in hubs} | {host.lower() for host in allowed}
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=stall_s)
        self._limit = connections + 2
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    @asynccontextmanager
    async def get(
        self, address: str, headers: Mapping[str, str] | None = None, *, method: str = "GET"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer at the end of the redirects, with status 200, 206 or 416. Raises CannotPull, Passing."""
        url = _read(address)
        async with AsyncExitStack() as stack:
            with _translated(url):
                for _ in range(1 + REDIRECTS):
                    response = await stack.enter_async_context(self._request(method, url, headers or {}))
                    if response.status not in _REDIRECT:
                        break
                    url = self._following(url, response)
                else:
                    raise CannotPull(f"{address} redirects more than {REDIRECTS} times.", code="hub_error")
                _check(response, url)
                yield response

    async def json(self, address: str) -> Any:
        """A JSON answer of bounded size."""
        async with self.get(address, {"Accept": "application/json"}) as response:
            parts, size = [], 0
            async for part in response.content.iter_chunked(2**16):
                parts.append(part)
                size += len(part)
                if size > LONGEST_JSON:
                    raise CannotPull(f"The answer of {_shown(response.url)} is too long.", code="hub_error")
        try:
            return encoding.loads(b"".join(parts))
        except ValueError as error:
            raise CannotPull(
                f"{_shown(response.url)} does not answer like a hub.", code="hub_error"
            ) from error

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        trusted = self._is_trusted(url)
        if url.scheme not in ("http", "https") or not url.raw_host:
            raise CannotPull(f"{_shown(url)} is neither http nor https.", code="hub_error")
        if url.scheme != "https" and not trusted:
            raise CannotPull(
                f"{_shown(url)} is not https; hub.allow_hosts may permit its host.", code="address_refused"
            )
        session = self._session(trusted)
        given = {**_HEADERS, **headers, **self._credentials.get(str(url.origin()), {})}
        async with session.request(method, url, headers=given, allow_redirects=False) as response:
            yield response

    def _session(self, trusted: bool) -> aiohttp.ClientSession:
        if trusted not in self._sessions:
            connector = aiohttp.TCPConnector(
                limit=self._limit, use_dns_cache=False, socket_factory=None if trusted else _guarded
            )
            self._sessions[trusted] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=self._timeout,
            )
        return self._sessions[trusted]

    def _is_trusted(self, url: URL) -> bool:
        return _host(url) in self._trusted or (url.raw_host or "").lower() in self._trusted

    def _following(self, url: URL, response: aiohttp.ClientResponse) -> URL:
        try:
            return _whole(url.join(URL(response.headers.get("Location", ""), encoded=True)))
        except ValueError:
            raise CannotPull(
                f"{_shown(url)} redirects to something that is no URL.", code="hub_error"
            ) from None


def _read(address: str) -> URL:
    try:
        return _whole(URL(address, encoded=True))
    except ValueError as error:
        raise CannotPull(
            f"{address.partition('?')[0][:300]} is no URL: {error}.", code="hub_error"
        ) from error


def _whole(url: URL) -> URL:
    """The URL, whose port is read only now. Raises ValueError."""
    url.port  # noqa: B018
    return url


def _guarded(info: Any) -> socket.socket:
    """A socket for a public address and for no other."""
    family, kind, protocol, _, peer = info
    if not is_public(ip_address(peer[0])):
        raise NotPublic("this address is not public")
    return socket.socket(family, kind, protocol)


@contextmanager
def _translated(url: URL) -> Iterator[None]:
    """aiohttp's errors as ours, also those of reading the body."""
    try:
        yield
    except aiohttp.InvalidURL as error:
        raise CannotPull(f"{_shown(url)} leads to something that is no URL.", code="hub_error") from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, NotPublic):
            raise CannotPull(
                f"{error.host} has no public address; hub.allow_hosts may permit it.", code="address_refused"
            ) from error
        raise Passing(f"{_shown(url)}: {error}") from error
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise Passing(f"{_shown(url)}: {str(error) or type(error).__name__}") from error


def _check(response: aiohttp.ClientResponse, url: URL) -> None:
    status = response.status
    if status in (401, 403):
        raise CannotPull(
            f"{_shown(url)} answers {status}: the model is private, gated or not there; HF_TOKEN or "
            "MODELSCOPE_API_TOKEN of the server must hold a token that may read it.",
            code="hub_forbidden",
        )
    if status in (404, 410):
        raise CannotPull(f"{_shown(url)} is not there ({status}).", code="source_not_found")
    if status in _PASSING or status >= 500:
        raise Passing(f"{_shown(url)} answers {status}", _wait(response.headers.get("Retry-After")))
    if status not in (200, 206, 416):
        raise CannotPull(f"{_shown(url)} answers {status}.", code="hub_error")
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise CannotPull(f"{_shown(url)} is sent compressed though that was not wanted.", code="hub_error")


def _wait(text: str | None) -> float:
    return min(float(text), _LONGEST_WAIT) if text and text.isascii() and text.isdigit() else 0.0


def _host(url: URL) -> str:
    return f"{(url.raw_host or '').lower()}:{url.port}"


def _shown(url: URL) -> str:
    """A URL for people: signatures and tokens stand in its query."""
    return str(url.with_query(None).with_fragment(None))[:300]
