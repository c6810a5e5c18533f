"""Forwarding to the engine: what counts as a good answer, and what every bad one is called."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

import pytest

from inferq.job import Job, JobSpec, JobState
from queues.records import failure_of, failure_text
from tests.workers.engine_stub import (
    DONE,
    EVENTS,
    Connection,
    Script,
    answered,
    event,
    hanging_up,
    serving,
    silent,
    streamed,
)
from workers.forward import DENSE, FEW, Body, EngineBroke, EngineRefused, Pace, Piece, forward

JOB = Job(
    spec=JobSpec(id="x", model="m", endpoint="chat/completions", body=b'{"n":1}'), state=JobState.RUNNING
)
ALONE, MANY = 1, FEW + 1


async def forwarded(folder: Path, script: Script, streams: int = ALONE) -> list[Body | Piece]:
    async with serving(folder, script) as stub, stub.session() as session:
        parts = [part async for part in forward(session, JOB.spec, JOB.spec.body, Pace(lambda: streams))]
        assert stub.bodies == [JOB.spec.body]
        return parts


def text_of(parts: list[Body | Piece]) -> bytes:
    assert all(isinstance(part, Piece) for part in parts)
    return b"".join(part.data for part in parts)


async def test_a_whole_body(short_dir: Path) -> None:
    parts = await forwarded(short_dir, answered(b'{"a":1}'))
    assert parts == [Body(b'{"a":1}', "application/json")]


async def test_a_body_of_another_kind(short_dir: Path) -> None:
    assert await forwarded(short_dir, answered(b"\xff\xd8", media="image/jpeg")) == [
        Body(b"\xff\xd8", "image/jpeg")
    ]


@pytest.mark.parametrize("streams", [ALONE, MANY])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
async def test_events_are_whole_however_they_arrive(short_dir: Path, size: int, streams: int) -> None:
    whole = b": hello\n\n" + event("你") + event("b") + DONE
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    parts = await forwarded(short_dir, streamed(*pieces), streams)
    assert text_of(parts) == whole
    assert all(part.data.endswith(b"\n\n") for part in parts)


async def test_events_with_carriage_returns(short_dir: Path) -> None:
    whole = (event("a") + event("b") + DONE).replace(b"\n", b"\r\n")
    for size in (1, 40, 1000):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert text_of(await forwarded(short_dir, streamed(*pieces))) == whole


@pytest.mark.parametrize("last", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\n\n"])
async def test_an_end_written_carelessly(short_dir: Path, last: bytes) -> None:
    assert text_of(await forwarded(short_dir, streamed(event("a"), last))).startswith(event("a"))


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (event("a"),),
        (event("a"), b'data: {"half":'),
        # Somebody says the end's words; that is not the end.
        (event("data: [DONE]"),),
        (event("a"), b'data: {"choices":[{"delta":{"content":"\\n\\ndata: [DONE]\\n\\n"}}]}\n\n'),
    ],
)
@pytest.mark.parametrize("end", [True, False])
async def test_a_stream_that_ends_early(short_dir: Path, pieces: tuple[bytes, ...], end: bool) -> None:
    with pytest.raises(EngineBroke):
        await forwarded(short_dir, streamed(*pieces, end=end))


@pytest.mark.parametrize(
    "wrong",
    [
        b'data: {"error": {"message": "out of luck", "code": 500}}\n\n',
        b'data: {"error":{"message":"out of luck","type":"server_error","code":null}}\n\n',
        b'data: {"object":"error","message":"out of luck","code":500}\n\n',
        b'event: error\ndata: {"error": {"message": "out of luck"}}\n\n',
        b'event: error\ndata: {"message": "out of luck"}\n\n',
        b'data: {"error": "out of luck"}\n\n',
        b'event: response.failed\ndata: {"response":{"error":{"code":"server_error","message":"out of luck"}}}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"out of luck"}}\n\n',
    ],
)
async def test_an_error_event_inside_a_200(short_dir: Path, wrong: bytes) -> None:
    """vLLM sends the error, then the end, with status 200."""
    for pieces in ((event("a"), wrong, DONE), (event("a") + wrong + DONE,), (wrong + DONE,)):
        with pytest.raises(EngineBroke, match="out of luck"):
            await forwarded(short_dir, streamed(*pieces))


async def test_an_error_event_that_blames_the_request(short_dir: Path) -> None:
    wrong = b'data: {"error": {"message": "too long", "code": 400, "param": "prompt"}}\n\n'
    with pytest.raises(EngineRefused) as refused:
        await forwarded(short_dir, streamed(event("a"), wrong, DONE))
    assert (refused.value.failure.status, refused.value.failure.param) == (400, "prompt")


@pytest.mark.parametrize(
    "words", ["event: error", '{\\"error\\": 1}', 'data: {\\"error\\"', '\\ndata: {\\"error']
)
async def test_an_answer_that_speaks_of_errors_is_none(short_dir: Path, words: str) -> None:
    whole = event(words) + DONE
    assert text_of(await forwarded(short_dir, streamed(whole))) == whole


@pytest.mark.parametrize(
    ("status", "body", "code", "param"),
    [
        (
            400,
            {"error": {"message": "no", "code": "invalid_value", "param": "n"}},
            "invalid_value",
            "n",
        ),
        (400, {"error": {"message": "no", "code": 400, "param": None}}, "invalid_request", None),
        (
            400,
            {"error": {"message": "This model's maximum context length is 10 tokens", "code": 400}},
            "context_length_exceeded",
            None,
        ),
        (404, {"object": "error", "message": "no", "code": 404}, "not_found", None),
        (422, {"detail": [{"loc": ["body"]}]}, "invalid_request", None),
        (413, "too much", "body_too_large", None),
    ],
)
async def test_a_refusal(short_dir: Path, status: int, body: object, code: str, param: str | None) -> None:
    with pytest.raises(EngineRefused) as refused:
        await forwarded(short_dir, answered(json.dumps(body).encode(), status))
    failure = refused.value.failure
    assert (failure.status, failure.code, failure.param) == (status, code, param)
    assert failure.message


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"error":{"message":"not \\ud800 a text","code":"\\udfff","param":"\\ud800"}}',
        b'{"error":{"message":["no","text"],"code":{"of":["what"]},"param":{"a":1}}}',
        b'{"error":' * 100_000,
    ],
)
@pytest.mark.parametrize("status", [400, 500])
async def test_an_error_of_no_shape_can_be_passed_on(short_dir: Path, status: int, wrong: bytes) -> None:
    with pytest.raises((EngineRefused, EngineBroke)) as caught:
        await forwarded(short_dir, answered(wrong, status))
    if isinstance(caught.value, EngineRefused):
        assert failure_of(failure_text(caught.value.failure)) == caught.value.failure
    str(caught.value).encode()


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_the_engines_own_failure_may_pass(short_dir: Path, status: int) -> None:
    with pytest.raises(EngineBroke, match="inner trouble"):
        await forwarded(short_dir, answered(b'{"error": {"message": "inner trouble"}}', status))


async def test_an_engine_that_is_busy_may_have_room_later(short_dir: Path) -> None:
    with pytest.raises(EngineBroke):
        await forwarded(short_dir, answered(b"{}", 429))


async def test_an_engine_that_hangs_up(short_dir: Path) -> None:
    with pytest.raises(EngineBroke):
        await forwarded(short_dir, hanging_up)


async def test_an_engine_that_is_not_there(short_dir: Path) -> None:
    async with serving(short_dir, hanging_up) as stub, stub.session() as session:
        stub.address.unlink()
        with pytest.raises(EngineBroke):
            [part async for part in forward(session, JOB.spec, JOB.spec.body, Pace(lambda: ALONE))]


async def test_leaving_closes_the_request(short_dir: Path) -> None:
    """Before the head, and in the middle of the stream: that is what stops the engine."""

    async def talking(connection: Connection) -> None:
        await connection.begin(EVENTS)
        await connection.piece(event("a"))
        await connection.left.wait()

    async with serving(short_dir, silent) as stub, stub.session() as session:
        waiting = asyncio.create_task(anext(forward(session, JOB.spec, JOB.spec.body, Pace(lambda: ALONE))))
        while not stub.bodies:
            await asyncio.sleep(0.01)
        waiting.cancel()
        while stub.departures < 1:
            await asyncio.sleep(0.01)
        stub.script = talking
        async with aclosing(forward(session, JOB.spec, JOB.spec.body, Pace(lambda: MANY))) as answer:
            assert await anext(answer) == Piece(event("a"), "text/event-stream")
        while stub.departures < 2:
            await asyncio.sleep(0.01)


async def parts_of_eight(
    folder: Path, streams: int, monkeypatch: pytest.MonkeyPatch, tick: float = 0.5
) -> int:
    """In how many parts eight events come that were sent over 80 ms."""
    monkeypatch.setattr("workers.forward.TICK", tick)
    pieces = [event(str(number)) for number in range(8)]
    parts = await forwarded(folder, streamed(*pieces, DONE), streams)
    assert text_of(parts) == b"".join(pieces) + DONE
    return len(parts)


async def test_many_streams_are_read_in_ticks(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await parts_of_eight(short_dir, MANY, monkeypatch) <= DENSE + 2


async def test_few_streams_are_read_as_they_come(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await parts_of_eight(short_dir, FEW, monkeypatch) > DENSE + 2


async def test_a_slow_stream_is_read_as_it_comes(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await parts_of_eight(short_dir, MANY, monkeypatch, tick=0.001) > DENSE + 2


async def test_an_answer_that_has_come_to_its_end_waits_for_no_tick(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection may serve another request already, and must not be paused."""
    monkeypatch.setattr("workers.forward.TICK", 600.0)
    monkeypatch.setattr("workers.forward.DENSE", 0)
    whole = event("a") + DONE

    async def at_once(connection: Connection) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
        await connection.raw(head % len(whole) + whole)

    async with asyncio.timeout(20):
        assert text_of(await forwarded(short_dir, at_once, MANY)) == whole
