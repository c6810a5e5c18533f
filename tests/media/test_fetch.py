"""Fetching callers' URLs: where to, how much, how long, and what is said when it is refused."""

import asyncio
import gzip
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from inferq import errors
from inferq.config.sections import Media
from inferq.media.fetch import Fetcher
from inferq.media.reference import Remote, parse
from tests.media.servers import Names, Server, answering, raw, redirect, response

LOOPBACK = {"allow_http": True, "allow_hosts": ["127.0.0.1"]}


async def fetch(url: str, tls: ssl.SSLContext | None = None, **rules: Any) -> bytes:
    remote = parse(url, param="image", limit=0)
    assert isinstance(remote, Remote)
    async with Fetcher(Media.model_validate(rules), tls).open(remote, param="image") as body:
        return b"".join([chunk async for chunk in body.chunks])


async def refusal(url: str, tls: ssl.SSLContext | None = None, **rules: Any) -> str:
    with pytest.raises(errors.InvalidRequest) as caught:
        await fetch(url, tls, **rules)
    assert caught.value.param == "image"
    assert "127.0.0" not in caught.value.message
    return caught.value.message


async def test_a_listed_host_is_fetched_from():
    async with answering(raw(response(b"hello", "Content-Type: image/png; x=y"))) as server:
        remote = parse(server.url("/a?b=%20c#d"), param="image", limit=0)
        assert isinstance(remote, Remote)
        async with Fetcher(Media.model_validate(LOOPBACK)).open(remote, param="image") as body:
            assert body.media_type == "image/png"
            assert [chunk async for chunk in body.chunks] == [b"hello"]
    (head,) = server.heads
    assert head.startswith(b"GET /a?b=%20c HTTP/1.1\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    assert {name.lower() for name in fields} == {
        b"host",
        b"accept",
        b"accept-encoding",
        b"user-agent",
        b"connection",
    }
    assert fields[b"Accept-Encoding"] == b"identity"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "[::]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "224.0.0.1",
        "255.255.255.255",
        "①②⑦.0.0.1",
    ],
)
async def test_inside_is_refused(host: str):
    for rules in ({}, {"fetch": "public", "allow_hosts": ["files.example", "10.2.0.0/16"]}):
        assert "does not lead to a public address" in await refusal(f"https://{host}/", **rules)


@pytest.mark.parametrize(
    "found",
    [
        [],
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["::1", "8.8.8.8"],
        ["fe80::1%eth0"],
        ["8.8.8.8", "10.9.0.1"],
    ],
)
async def test_every_address_of_a_name_must_be_public(names: Names, found: list[str]):
    names.answers["evil.example"] = [found]
    said = await refusal("https://evil.example/", allow_hosts=["10.2.0.0/16"])
    assert said == "The URL in 'image' is refused: its host does not lead to a public address."


async def test_what_is_checked_is_what_is_connected_to(names: Names):
    """DNS rebinding: the second look-up, which would lead elsewhere, never happens."""
    names.answers["rebind.example"] = [["127.0.0.2"], ["127.0.0.1"]]
    async with (
        answering(raw(response(b"inside"))) as victim,
        answering(raw(response(b"outside")), "127.0.0.2", port=victim.port),
    ):
        url = victim.url(host="rebind.example")
        assert await fetch(url, allow_http=True, allow_hosts=["127.0.0.2"]) == b"outside"
    assert names.asked == ["rebind.example"]
    assert victim.heads == []


async def test_a_socket_for_another_address_is_never_made(names: Names, monkeypatch: pytest.MonkeyPatch):
    """Should the library look a name up by itself one day, the guard at the socket still holds."""

    async def resolve(_self: object, host: str, port: int = 0, family: int = 0) -> list[Any]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

    monkeypatch.setattr("inferq.media.fetch._Pinned.resolve", resolve)
    async with answering(raw(response(b"inside"))) as victim:
        names.answers["rebind.example"] = [["127.0.0.2"]]
        url = victim.url(host="rebind.example")
        assert "could not be reached" in await refusal(url, allow_http=True, allow_hosts=["127.0.0.2"])
    assert victim.heads == []


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    async with answering(raw(response(b"proxied"))) as proxy, answering(raw(response(b"hello"))) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        assert await fetch(server.url(), **LOOPBACK) == b"hello"
    assert proxy.heads == []
    assert b"authorization" not in server.heads[0].lower()


@pytest.mark.parametrize(
    ("url", "rules", "said"),
    [
        ("https://8.8.8.8/", {"fetch": "off", "allow_hosts": ["8.8.8.8"]}, "this server fetches no URLs"),
        ("http://8.8.8.8/", {}, "only https://"),
        ("https://8.8.8.8/", {"fetch": "listed"}, "not one that this server fetches from"),
        ("https://10.0.0.1/", {"fetch": "listed", "allow_hosts": ["10.0.0.2"]}, "not one that this server"),
        ("https://8.8.8.8:8443/", {}, "ports 80 and 443"),
        ("https://8.8.8.8:22/", {}, "ports 80 and 443"),
        ("http://8.8.8.8:6379/", {"allow_http": True}, "ports 80 and 443"),
    ],
)
async def test_rules(url: str, rules: dict[str, Any], said: str):
    assert said in await refusal(url, **rules)


@pytest.mark.parametrize("allowed", ["files.example", "FILES.example.", "127.0.0.2", "127.0.0.0/30"])
@pytest.mark.parametrize("host", ["files.example", "Files.Example."])
async def test_ways_to_list_a_host(names: Names, allowed: str, host: str):
    names.answers["files.example"] = names.answers["files.example."] = [["127.0.0.2"]]
    async with answering(raw(response(b"hello")), "127.0.0.2") as server:
        url = server.url(host=host)
        assert await fetch(url, fetch="listed", allow_http=True, allow_hosts=[allowed]) == b"hello"


async def test_a_listed_name_does_not_list_its_neighbours(names: Names):
    for host in ("evilfiles.example", "a.files.example", "files.example.evil.example"):
        names.answers[host] = [["127.0.0.1"]]
        assert "public address" in await refusal(f"https://{host}/", allow_hosts=["files.example"])


async def test_redirects_are_followed_three_times():
    async def answer(server: Server, path: bytes, writer: asyncio.StreamWriter) -> None:
        left = int(path[1:])
        writer.write(response(b"", f"Location: /{left - 1}", status="307 X") if left else response(b"end"))

    async with answering(answer) as server:
        assert await fetch(server.url("/3"), **LOOPBACK) == b"end"
        assert len(server.heads) == 4
        assert "more than 3 times" in await refusal(server.url("/4"), **LOOPBACK)
        assert len(server.heads) == 8


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("https://127.0.0.2/", "public address"),
        ("https://169.254.169.254/latest/meta-data/", "public address"),
        ("//10.0.0.1/x", "public address"),
        ("file:///etc/passwd", "only https:// and http://"),
        ("ftp://example.com/", "only https:// and http://"),
        ("gopher://127.0.0.1:6379/_x", "only https:// and http://"),
        ("data:text/plain,x", "only https:// and http://"),
        ("https://user:password@8.8.8.8/", "user or a password"),
        ("https://2130706433/", "usual spelling"),
        ("https://[::1", "no URL"),
        ("", "more than 3 times"),
        ("?again", "more than 3 times"),
    ],
)
async def test_each_redirect_is_checked_like_the_first_url(to: str, said: str):
    async with answering(redirect(to)) as server:
        assert said in await refusal(server.url("/"), **LOOPBACK)


async def test_a_redirect_without_a_place_ends():
    async with answering(raw(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")) as server:
        assert "more than 3 times" in await refusal(server.url("/"), **LOOPBACK)


async def test_a_redirect_to_a_name_that_leads_inside(names: Names):
    names.answers["inside.example"] = [["127.0.0.2"]]
    async with answering(redirect("http://inside.example/")) as server:
        assert "public address" in await refusal(server.url("/"), **LOOPBACK)
    assert names.asked == ["inside.example"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("404 Not Found", "There is no file at the URL"),
        ("410 Gone", "There is no file at the URL"),
        ("401 Unauthorized", "status 401"),
        ("500 Oops", "status 500"),
        ("204 No Content", "status 204"),
        ("206 Partial Content", "status 206"),
        ("304 Not Modified", "status 304"),
    ],
)
async def test_statuses(status: str, said: str):
    async with answering(raw(response(b"", status=status))) as server:
        assert said in await refusal(server.url(), **LOOPBACK)


async def test_a_declared_size_is_refused_before_the_body():
    async def answer(_server: Server, _path: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(30)

    async with answering(answer) as server:
        begun = time.monotonic()
        assert "larger than 1000 bytes" in await refusal(server.url(), max_remote=1000, **LOOPBACK)
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("head", [b"Connection: close", b"Transfer-Encoding: chunked"])
async def test_an_endless_body_without_a_size_is_cut_off(head: bytes):
    sent = 0

    async def answer(_server: Server, _path: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        block = b"x" * 65_536
        while True:
            writer.write(b"10000\r\n" + block + b"\r\n" if b"chunked" in head else block)
            await writer.drain()
            sent += len(block)

    async with answering(answer) as server:
        assert "larger than 100000 bytes" in await refusal(server.url(), max_remote=100_000, **LOOPBACK)
    assert sent < 50_000_000


async def test_the_limit_is_to_the_byte():
    async with answering(raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)) as server:
        assert await fetch(server.url(), max_remote=1000, **LOOPBACK) == b"x" * 1000
        assert "larger" in await refusal(server.url(), max_remote=999, **LOOPBACK)


async def test_a_body_longer_than_it_says_is_not_taken():
    async with answering(raw(response(b"hello" * 1000, length=5))) as server:
        assert "could not be fetched" in await refusal(server.url(), max_remote=10, **LOOPBACK)


@pytest.mark.parametrize(
    "answer",
    [response(b"hello", length=50), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"],
    ids=["length", "chunked"],
)
async def test_a_body_that_ends_early_is_no_file(answer: bytes):
    async with answering(raw(answer)) as server:
        assert "ended early" in await refusal(server.url(), **LOOPBACK)


async def test_a_compressed_body_is_not_unpacked():
    bomb = gzip.compress(b"\x00" * 10_000_000)
    async with answering(raw(response(bomb, "Content-Encoding: gzip"))) as server:
        assert "compressed" in await refusal(server.url(), max_remote=1_000_000, **LOOPBACK)
    async with answering(raw(response(bomb, "Content-Type: application/gzip"))) as server:
        assert await fetch(server.url(), max_remote=1_000_000, **LOOPBACK) == bomb


@pytest.mark.parametrize("slow", ["head", "body", "never"])
async def test_a_server_that_drips_is_left(slow: str):
    async def answer(_server: Server, _path: bytes, writer: asyncio.StreamWriter) -> None:
        text = b"HTTP/1.1 200 OK\r\n" if slow == "head" else b"HTTP/1.1 200 OK\r\n\r\n"
        if slow == "never":
            await asyncio.sleep(30)
        writer.write(text)
        while True:
            writer.write(b"X-A: b\r\n" if slow == "head" else b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with answering(answer) as server:
        begun = time.monotonic()
        assert "took longer than 0.4 s" in await refusal(server.url(), fetch_timeout=0.4, **LOOPBACK)
        assert time.monotonic() - begun < 3


async def test_a_slow_resolver_counts_and_keeps_no_thread_of_others(monkeypatch: pytest.MonkeyPatch):
    answer = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        answer.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    shared = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(shared)
    try:
        assert "took longer" in await refusal("https://slow.example/", fetch_timeout=0.3)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 5) == "done"
    finally:
        answer.set()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + b"/y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["empty", "garbage", "negative", "two lengths", "chunks", "header", "headers", "location"],
)
async def test_servers_that_break_the_rules(answer: bytes):
    async with answering(raw(answer)) as server:
        assert "could not be fetched" in await refusal(server.url(), **LOOPBACK)


async def test_nobody_listens():
    async with answering(raw(b"")) as server:
        url = server.url()
    assert "could not be reached" in await refusal(url, **LOOPBACK)


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


@pytest.fixture
async def secure(certificate: Path) -> AsyncIterator[Server]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with answering(raw(response(b"hello")), tls=tls) as server:
        yield server


async def test_the_certificate_must_fit_the_name_not_the_address(
    names: Names, secure: Server, certificate: Path
):
    names.answers["files.example"] = names.answers["other.example"] = [["127.0.0.1"]]
    tls, rules = trusting(certificate), {"allow_hosts": ["127.0.0.1"]}
    assert await fetch(secure.url(host="files.example", scheme="https"), tls, **rules) == b"hello"
    assert b"Host: files.example:" in secure.heads[0]
    assert "certificate" in await refusal(secure.url(host="other.example", scheme="https"), tls, **rules)
    assert "certificate" in await refusal(secure.url(scheme="https"), tls, **rules)
    assert len(secure.heads) == 1


async def test_a_certificate_nobody_knows_is_refused(names: Names, secure: Server):
    names.answers["files.example"] = [["127.0.0.1"]]
    said = await refusal(secure.url(host="files.example", scheme="https"), allow_hosts=["files.example"])
    assert "certificate or TLS was not accepted" in said
    assert secure.heads == []


async def test_https_is_never_left_for_http(names: Names, certificate: Path):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    names.answers["files.example"] = [["127.0.0.1"]]
    async with (
        answering(raw(response(b"plain"))) as plain,
        answering(redirect(plain.url()), tls=tls) as secure,
    ):
        url = secure.url(host="files.example", scheme="https")
        assert "from https:// to http://" in await refusal(url, trusting(certificate), **LOOPBACK)
    assert plain.heads == []


async def test_a_callers_own_error_goes_through():
    remote = parse("http://127.0.0.1:1/", param="image", limit=0)
    assert isinstance(remote, Remote)
    async with answering(raw(response(b"hello"))) as server:
        remote = parse(server.url(), param="image", limit=0)
        with pytest.raises(OSError, match="mine"):
            async with Fetcher(Media.model_validate(LOOPBACK)).open(remote, param="image"):
                raise OSError("mine")


async def test_a_fetch_can_be_cancelled():
    async def answer(_server: Server, _path: bytes, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with answering(answer) as server:
        task = asyncio.create_task(fetch(server.url(), **LOOPBACK))
        while not server.heads:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
