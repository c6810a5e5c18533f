"""Fetching a caller's URL without lending him our place in the network.

1. One parse: `reference.remote_url` made the URL that is checked here and connected to by aiohttp, redirects included.
2. One look-up: the name is resolved once, every address of it must be public or on the list, and the connection goes
   to these addresses alone. The guard sits where sockets are made, so no cache, proxy or second look-up gets past it.
3. Nothing of ours goes along: GET only, no cookies, no credentials, no proxy of the environment.
4. Everything is bounded: bytes, redirects, and one time-out for all of it. Compressed bodies are refused.

Messages say nothing about addresses, and a name that does not exist reads like one that leads inside.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address, ip_network

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from inferq import errors
from inferq.config.sections import Media
from inferq.media import addresses
from inferq.media.addresses import Address
from inferq.media.reference import Remote, remote_url

REDIRECTS = 3
_CONNECT_SECONDS = 5.0
_CHUNK = 1 << 16
_PORTS = (80, 443)
_REDIRECT = frozenset({301, 302, 303, 307, 308})
_LOOK_UPS = ThreadPoolExecutor(32, thread_name_prefix="names")
"""A resolver that does not answer keeps a thread for long; the threads for other work are not these."""
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "inferq"}


@dataclass(frozen=True, slots=True)
class Body:
    """A remote file: the media type its server claims, and its bytes, at most as many as were allowed."""

    media_type: str | None
    chunks: AsyncIterator[bytes]


class Fetcher:
    """Fetches what the configuration allows. `tls` is for servers whose certificate a public authority did not sign."""

    def __init__(self, rules: Media, tls: ssl.SSLContext | None = None) -> None:
        self._rules = rules
        self._tls = tls or ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        # The configuration has written networks with their length, which no name has.
        self._names = frozenset(host for host in rules.allow_hosts if "/" not in host)
        self._networks = [ip_network(host) for host in rules.allow_hosts if "/" in host]

    @asynccontextmanager
    async def open(self, remote: Remote, *, param: str) -> AsyncIterator[Body]:
        """The file at a URL, which is read inside the block. Raises InvalidRequest, also while it is read."""
        deadline = asyncio.get_running_loop().time() + self._rules.fetch_timeout
        async with AsyncExitStack() as stack:
            async with self._in_our_words(deadline, param):
                response = await self._follow(remote.url, param, stack)
            chunks = await stack.enter_async_context(aclosing(self._read(response, deadline, param)))
            yield Body(_claimed(response), chunks)

    @asynccontextmanager
    async def _in_our_words(self, deadline: float, param: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except (aiohttp.ClientError, ssl.SSLError) as error:
            raise failed(param, reason(error)) from error
        except TimeoutError:
            raise failed(param, f"it took longer than {self._rules.fetch_timeout:g} s") from None
        except OSError as error:
            raise failed(param, "its server could not be reached") from error

    async def _follow(self, url: URL, param: str, stack: AsyncExitStack) -> aiohttp.ClientResponse:
        """The answer at the end of the redirects, each of which is checked like the first URL."""
        for _ in range(1 + REDIRECTS):
            response = await stack.enter_async_context(self._get(url, param))
            if response.status not in _REDIRECT:
                return self._accepted(response, param)
            location = response.headers.get("Location", "")
            # The text of the joined URL is parsed anew: a Location may hold anything.
            following = remote_url(_joined(url, location, param), param)
            if url.scheme == "https" and following.scheme == "http":
                raise failed(param, "it was redirected from https:// to http://")
            url = following
        raise failed(param, f"it was redirected more than {REDIRECTS} times")

    @asynccontextmanager
    async def session(self, url: URL, param: str) -> AsyncIterator[aiohttp.ClientSession]:
        """A session that connects to the checked addresses of this URL alone. Raises InvalidRequest."""
        allowed = await self._addresses(url, param)
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(allowed),
            use_dns_cache=False,
            force_close=True,
            ssl=self._tls,
            socket_factory=_guard(frozenset(allowed)),
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        ) as session:
            yield session

    @asynccontextmanager
    async def _get(self, url: URL, param: str) -> AsyncIterator[aiohttp.ClientResponse]:
        async with (
            self.session(url, param) as session,
            session.get(url, headers=_HEADERS, allow_redirects=False) as response,
        ):
            yield response

    async def _addresses(self, url: URL, param: str) -> list[Address]:
        """Where the URL may be connected to. Refused unless every address of its host is allowed."""
        host, rules = url.raw_host or "", self._rules
        if rules.fetch == "off":
            raise refused(param, "this server fetches no URLs; send the file itself")
        if url.scheme == "http" and not rules.allow_http:
            raise refused(param, "only https:// is fetched")
        found = await _resolve(host, url.port or 0)
        inside = [address for address in found if self._is_listed(address)]
        if found and (host.rstrip(".").lower() in self._names or inside == found):
            return found
        if rules.fetch == "listed":
            raise refused(param, "its host is not one that this server fetches from")
        if url.port not in _PORTS:
            raise refused(param, "only the ports 80 and 443 are fetched from")
        if not found or not all(address in inside or addresses.is_public(address) for address in found):
            raise refused(param, "its host does not lead to a public address")
        return found

    def _is_listed(self, address: Address) -> bool:
        real = addresses.carried(address) or address
        return any(real.version == network.version and real in network for network in self._networks)

    def _accepted(self, response: aiohttp.ClientResponse, param: str) -> aiohttp.ClientResponse:
        if response.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise errors.InvalidRequest(f"There is no file at the URL in '{param}'.", param=param)
        if response.status != HTTPStatus.OK:
            raise failed(param, f"its server answered with status {response.status}")
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise failed(param, "its server sent it compressed")
        if (response.content_length or 0) > self._rules.max_remote:
            raise self._too_large(param)
        return response

    async def _read(
        self, response: aiohttp.ClientResponse, deadline: float, param: str
    ) -> AsyncGenerator[bytes]:
        left = self._rules.max_remote
        while True:
            async with self._in_our_words(deadline, param):
                chunk = await response.content.read(_CHUNK)
            if not chunk:
                return
            left -= len(chunk)
            if left < 0:
                raise self._too_large(param)
            yield chunk

    def _too_large(self, param: str) -> errors.InvalidRequest:
        limit = self._rules.max_remote
        return errors.InvalidRequest(
            f"The file at the URL in '{param}' is larger than {limit} bytes, the limit of this server.",
            param=param,
        )


class _Pinned(AbstractResolver):
    """Answers every name with the addresses that were checked."""

    def __init__(self, allowed: list[Address]) -> None:
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._allowed
        ]

    async def close(self) -> None:
        """Nothing is open."""


def _guard(allowed: frozenset[Address]) -> "aiohttp.connector.SocketFactoryType":
    """Sockets for the checked addresses and no others."""

    def make(info: "aiohttp.AddrInfoType") -> socket.socket:
        family, kind, protocol, _, peer = info
        if ip_address(peer[0]) not in allowed:
            raise OSError("a socket was asked for an address that was not checked")
        return socket.socket(family, kind, protocol)

    return make


async def _resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, each once, in the resolver's order; none when it has none or the resolver fails."""
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    try:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up)
        return list(dict.fromkeys(ip_address(peer[0]) for *_, peer in found))
    except (OSError, UnicodeError, ValueError):
        return []


def _joined(url: URL, location: str, param: str) -> str:
    try:
        return str(url.join(URL(location)))
    except ValueError:
        raise failed(param, "its server redirected to something that is no URL") from None


def _claimed(response: aiohttp.ClientResponse) -> str | None:
    return response.content_type if "Content-Type" in response.headers else None


def reason(error: Exception) -> str:
    """Why a connection came to nothing, without the addresses that libraries put into their messages."""
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "its server's certificate or TLS was not accepted"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it ended early"
    if isinstance(error, aiohttp.ClientConnectionError):
        return "its server could not be reached"
    return "its server did not answer as HTTP wants it"


def refused(param: str, why: str) -> errors.InvalidRequest:
    """The URL may not be fetched, now or later."""
    return errors.InvalidRequest(f"The URL in '{param}' is refused: {why}.", param=param)


def failed(param: str, why: str) -> errors.InvalidRequest:
    """The URL may be fetched, but that came to nothing. Final for the request, though another try may go well."""
    return errors.InvalidRequest(f"The URL in '{param}' could not be fetched: {why}.", param=param)
