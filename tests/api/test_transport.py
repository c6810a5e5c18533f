"""What one connection may send, and how long it may take over it; on real sockets against a server that runs."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api import transport
from inferq.config import Settings
from inferq.job import JobState
from tests.api.caller import Caller, calling
from tests.api.stack import ANSWER, CHAT, Replica, Stack, serving, settings_for, until

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
END = b"\r\n"
JOB = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n"


def lines(count: int) -> bytes:
    return b"".join(b"X-%d: 1\r\n" % number for number in range(count))


async def alive(stack: Stack) -> None:
    assert (await stack.get("/livez", None)).status_code == 200


HUGE = b"a" * 2 * transport.MOST_HEAD
HEADS = {
    "a value": [LIVE + b"X-A: " + HUGE],
    "a value in pieces": [LIVE + b"X-A: ", *[b"a" * 100] * 1000],
    "a name": [LIVE, HUGE],
    "a name in pieces": [LIVE, *[b"a" * 100] * 1000],
    "a path": [b"GET /" + HUGE],
    "a path in pieces": [b"GET /", *[b"a" * 100] * 1000],
    "empty lines": [b"\r\n" * transport.MOST_HEAD],
    "one line too many": [LIVE + lines(transport.MOST_HEADERS) + END],
    "many lines without an end": [LIVE + lines(transport.MOST_HEADERS + 1)],
}


@pytest.mark.parametrize("pieces", HEADS.values(), ids=HEADS.keys())
async def test_headers_over_the_limit_are_refused(stack: Stack, pieces: list[bytes]) -> None:
    async with calling(stack) as caller:
        await caller.send(*pieces)
        status, error = await caller.refusal()
    assert (status, error["code"], error["type"]) == (431, "headers_too_large", "invalid_request_error")
    await alive(stack)


@pytest.mark.parametrize(("over", "expected"), [(0, 200), (1, 431)])
async def test_the_limit_is_exact(stack: Stack, over: int, expected: int) -> None:
    start = LIVE + b"X-A: "
    room = transport.MOST_HEAD - len(start) - len(END + END)
    async with calling(stack) as caller:
        await caller.send(start + b"a" * (room + over) + END + END)
        assert (await caller.answer())[0] == expected


async def test_headers_that_come_together_with_the_body_before_them_are_bounded_too(stack: Stack) -> None:
    async with calling(stack) as caller:
        await caller.send(JOB + b"Content-Length: 2\r\n\r\na")
        assert (await caller.answer())[0] == 401
        await caller.send(b"a" + LIVE + b"X-A: " + b"a" * (transport.MOST_HEAD + 10_000) + END + END)
        assert (await caller.refusal())[0] == 431


async def test_the_parser_never_sees_more(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    original = transport.Protocol._feed

    def spy(self: Any, data: bytes) -> None:
        fed.append(len(data))
        original(self, data)

    monkeypatch.setattr(transport.Protocol, "_feed", spy)
    async with calling(stack) as caller:
        await caller.send(LIVE + b"X-A: ", *[b"a" * 1000] * 1000)
        assert (await caller.refusal())[0] == 431
    assert sum(fed) == transport.MOST_HEAD


async def test_as_many_headers_as_allowed_are_taken_by_each_request_of_a_connection(stack: Stack) -> None:
    whole = LIVE + b"X-A: " + b"a" * 50_000 + END + lines(transport.MOST_HEADERS - 2) + END
    async with calling(stack) as caller:
        for _ in range(3):
            await caller.send(*[whole[at : at + 1000] for at in range(0, len(whole), 1000)])
            assert (await caller.answer())[0] == 200
        await caller.send(whole * 3)
        assert [(await caller.answer())[0] for _ in range(3)] == [200] * 3
        await caller.send(LIVE + lines(transport.MOST_HEADERS) + END)
        assert (await caller.refusal())[0] == 431


async def test_trailers_are_bounded_and_are_no_headers(stack: Stack) -> None:
    body = json.dumps({**CHAT, "model": "none"}).encode()
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    key = f"Authorization: Bearer {stack.keys['user']}\r\n".encode()
    chunks = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    async with calling(stack) as caller:
        await caller.send(head + key + b"\r\n" + chunks + b"X-A: 1\r\n" + lines(200) + END)
        assert (await caller.answer())[0] == 404
        await caller.send(head + key + b"\r\n" + chunks + b"X-A: ", *[b"a" * 1000] * 1000)
        assert (await caller.refusal())[0] == 431
    async with calling(stack) as caller:
        await caller.send(head + b"\r\n" + chunks + key + END)
        assert (await caller.answer())[0] == 401
    await alive(stack)


async def test_what_is_no_http_gets_the_one_shape(stack: Stack) -> None:
    async with calling(stack) as caller:
        await caller.send(b"\x16\x03\x01 hello\r\n\r\n")
        status, error = await caller.refusal()
    assert (status, error["code"]) == (400, "invalid_request")


async def test_other_protocols_are_not_spoken(stack: Stack) -> None:
    async with calling(stack) as caller:
        await caller.send(LIVE + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await caller.answer())[0] == 200
        await caller.send(LIVE + END)
        assert (await caller.answer())[0] == 200
        await caller.send(b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await caller.refusal())[0] == 400


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


def keyed(stack: Stack, path: str = "/v1/jobs") -> bytes:
    """The start of the headers of a POST with a key."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stack.keys['user']}\r\n".encode()


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "length"])
async def test_a_body_behind_the_offer_of_another_protocol_is_read(
    stack: Stack, chunked: bool, whole: bool
) -> None:
    def framed(body: bytes) -> bytes:
        if chunked:
            return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    job = json.dumps({**CHAT, "model": "none"}).encode()
    first = keyed(stack) + UPGRADE + framed(job)
    second = JOB + UPGRADE + framed(LIVE + END)
    async with calling(stack) as caller:
        sent = first + second + LIVE + END
        await caller.send(*([sent] if whole else [sent[at : at + 1] for at in range(len(sent))]))
        status, _, body = await caller.answer()
        assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")
        assert [(await caller.answer())[0] for _ in range(2)] == [401, 200]
        # The body of the second was no request.
        await caller.send(b"?\r\n\r\n")
        assert (await caller.refusal())[0] == 400


async def test_requests_behind_the_offer_of_another_protocol_are_answered(stack: Stack) -> None:
    async with calling(stack) as caller:
        await caller.send((LIVE + UPGRADE + END + MODELS) * 3)
        assert [(await caller.answer())[0] for _ in range(6)] == [200, 401] * 3


async def test_headers_with_an_offer_are_bounded_like_others(stack: Stack) -> None:
    async with calling(stack) as caller:
        await caller.send(LIVE + UPGRADE + lines(transport.MOST_HEADERS - 4) + END)
        assert (await caller.answer())[0] == 200
        await caller.send(LIVE + UPGRADE + lines(transport.MOST_HEADERS - 3) + END)
        assert (await caller.refusal())[0] == 431


async def test_few_requests_wait_on_one_connection(stack: Stack) -> None:
    most = 1 + transport.MOST_PIPELINED
    async with calling(stack) as caller:
        await caller.send((LIVE + END) * most)
        assert [(await caller.answer())[0] for _ in range(most)] == [200] * most
        await caller.send((LIVE + END) * (most + 1))
        assert await caller.rest() == b""
    await alive(stack)


async def test_a_caller_who_leaves_is_noticed_with_another_request_behind(
    stack: Stack, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps(CHAT).encode()
    async with calling(stack) as caller:
        call = keyed(stack, "/v1/chat/completions") + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        await caller.send(call + LIVE + END)
        attempt = await replica.claim()

    async def cancelled() -> bool:
        return (await stack.context.gateway.intake.find(attempt.id)).state is JobState.CANCELLED

    await until(cancelled)
    assert not [record for record in caplog.records if record.exc_info or record.name == "uvicorn.error"]


async def test_a_body_that_breaks_off_is_answered(stack: Stack) -> None:
    async with calling(stack) as caller:
        await caller.send(keyed(stack) + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n", b"ZZ\r\n")
        status, error = await caller.refusal()
    assert (status, error["code"]) == (400, "invalid_request")
    await alive(stack)


async def test_a_body_that_nobody_reads_may_not_be_endless(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "LINGER_BYTES", 200_000)
    async with calling(stack) as caller:
        await caller.send(JOB + b"Content-Length: 10000000\r\n\r\n" + b"a")
        assert (await caller.answer())[0] == 401
        await caller.send(b"a" * 190_000)
        await alive(stack)
        assert not caller.reader.at_eof()
        await caller.send(b"a" * 500_000)
        with contextlib.suppress(ConnectionError):
            assert await caller.rest() == b""


@pytest.fixture
async def hasty(settings: Settings, template: Path) -> AsyncIterator[Stack]:
    """An API that waits for headers only a moment."""
    api = {"header_timeout": 1.0}
    async with serving(settings_for(settings.home, settings.redis_url, api=api), template) as running:
        yield running


@pytest.mark.parametrize("start", [b"", b"\r\n", b"G", LIVE, LIVE + b"X-A"], ids=repr)
async def test_headers_that_do_not_come_are_given_up(hasty: Stack, start: bytes) -> None:
    async with calling(hasty) as caller:
        await caller.send(start)
        status, error = await caller.refusal()
    assert (status, error["code"]) == (408, "headers_too_slow")
    assert "1 s" in error["message"]


async def test_dripping_headers_win_no_time(hasty: Stack) -> None:
    async def drip(caller: Caller) -> None:
        while True:
            await caller.send(b"X-A: 1\r\n")
            await asyncio.sleep(0.05)

    async with calling(hasty) as caller:
        await caller.send(LIVE)
        dripping = asyncio.create_task(drip(caller))
        assert (await caller.answer())[0] == 408
        dripping.cancel()


async def test_a_later_request_has_a_clock_of_its_own(hasty: Stack) -> None:
    async with calling(hasty) as caller:
        for _ in range(2):
            await caller.send(LIVE + END)
            assert (await caller.answer())[0] == 200
            # Between two requests the connection may rest for longer than headers may take.
            await asyncio.sleep(1.2)
        await caller.send(LIVE + END + LIVE)
        assert (await caller.answer())[0] == 200
        assert (await caller.refusal())[1]["code"] == "headers_too_slow"


async def test_empty_lines_behind_an_answer_do_not_keep_a_connection(hasty: Stack) -> None:
    async with calling(hasty) as caller:
        await caller.send(LIVE + END)
        assert (await caller.answer())[0] == 200
        await caller.send(END)
        assert await caller.rest() == b""


async def test_the_clock_rests_while_a_call_is_awaited(hasty: Stack, replica: Replica) -> None:
    body = json.dumps(CHAT).encode()
    key = f"Authorization: Bearer {hasty.keys['user']}\r\n"
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{key}Content-Length: {len(body)}\r\n\r\n"
    async with calling(hasty) as caller:
        # Some clients send an empty line behind a body, and this one has begun its next request.
        await caller.send(head.encode() + body + END + LIVE)
        attempt = await replica.claim()
        await asyncio.sleep(1.2)
        await replica.result(attempt)
        status, _, answer = await caller.answer()
        assert (status, answer) == (200, ANSWER)
        assert (await caller.refusal())[0] == 408


async def test_a_body_that_nobody_reads_may_not_come_for_ever(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "UNREAD_SECONDS", 0.3)
    async with calling(stack) as caller:
        await caller.send(JOB + b"Content-Length: 1000\r\n\r\n" + b"a")
        assert (await caller.answer())[0] == 401
        await caller.send(b"a")
        assert await caller.rest() == b""


async def test_a_connection_whose_body_came_late_does_not_rest_for_ever(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = transport.Protocol.__init__

    def hurried(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.timeout_keep_alive = 0.3

    monkeypatch.setattr(transport.Protocol, "__init__", hurried)
    async with calling(stack) as caller:
        await caller.send(JOB + b"Content-Length: 2\r\n\r\n")
        assert (await caller.answer())[0] == 401
        await caller.send(b"ab")
        assert await caller.rest() == b""


async def test_too_many_connections_are_refused_but_for_probes(
    settings: Settings, template: Path, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "SPARE", 2)
    api = {"max_connections": 2}
    async with serving(settings_for(settings.home, settings.redis_url, api=api), template) as stack:
        waiting = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
        attempt = await replica.claim()
        async with calling(stack) as old, calling(stack) as late, calling(stack) as probe:
            await old.send(LIVE + END)
            assert (await old.answer())[0] == 200
            await late.send(JOB + b"Content-Length: 3\r\n\r\nabc")
            status, headers, body = await late.answer()
            assert (status, headers["retry-after"], headers["connection"]) == (503, "5", "close")
            assert json.loads(body)["error"]["code"] == "too_many_connections"
            assert await late.rest() == b""
            async with calling(stack) as spare, calling(stack) as beyond:
                await beyond.send(*[JOB + b"Content-Length: 1000000\r\n\r\n", *[b"a" * 10_000] * 100])
                assert (await beyond.refusal())[0] == 503
                for path in transport.PROBES:
                    await probe.send(b"GET %b?a HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                    assert (await probe.answer())[1]["content-type"] == "application/json", path
                await spare.send(LIVE + END)
                assert (await spare.answer())[0] == 200
            # Those who were there before are served on.
            await old.send(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await old.answer())[0] == 401
            await replica.result(attempt)
            assert (await waiting).content == ANSWER
        async with calling(stack) as later:
            await later.send(JOB + b"Content-Length: 0\r\n\r\n")
            assert (await later.answer())[0] == 401


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "expected"),
    [
        (600, 4000, 500, "(1524, 4000) 500"),
        (600, 4000, 5000, "(4000, 4000) 2976"),
        (256, 256, 5000, "(256, 256) 128"),
    ],
)
def test_connections_leave_room_for_other_files(soft: int, hard: int, wanted: int, expected: str) -> None:
    code = (
        "import resource as r\nfrom api.server import *\n"
        f"r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        f"allow_connections({wanted})\nprint(r.getrlimit(r.RLIMIT_NOFILE), most_connections({wanted}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == expected
