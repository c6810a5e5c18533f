"""Dense streams that are read at ticks, on the loop of the replica (uvloop) and on asyncio's own."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from inferq.job import Job, JobSpec, JobState
from tests.workers.engine_stub import DONE, EVENTS, Connection, event, serving, silent
from workers.forward import FEW, EngineBroke, Pace, Piece, forward

Run = Callable[[Coroutine[Any, Any, None]], None]
JOB = Job(spec=JobSpec(id="x", model="m", endpoint="chat/completions", body=b"{}"), state=JobState.RUNNING)
DENSE_PART = [event(str(number)) for number in range(6)]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    runner: Run = request.param
    return runner


def paced(session: aiohttp.ClientSession) -> Any:
    return forward(session, JOB.spec, JOB.spec.body, Pace(lambda: FEW + 1))


async def dense(connection: Connection) -> None:
    """The beginning of a stream that is then read at ticks."""
    await connection.begin(EVENTS)
    for piece in DENSE_PART:
        await connection.piece(piece)


def test_what_came_while_the_caller_was_busy_does_not_wait_for_more(run: Run, short_dir: Path) -> None:
    async def script(connection: Connection) -> None:
        await dense(connection)
        await asyncio.sleep(0.03)
        await connection.piece(event("late"))
        await connection.left.wait()

    async def body() -> None:
        async with serving(short_dir, script) as stub, stub.session() as session, asyncio.timeout(20):
            got = b""
            async for part in paced(session):
                got += part.data
                if b"late" in got:
                    break
                if part.data.endswith(DENSE_PART[-1]):
                    await asyncio.sleep(0.06)

    run(body())


def test_half_an_event_and_a_pause_do_not_stop_a_stream(run: Run, short_dir: Path) -> None:
    whole = event("torn")

    async def script(connection: Connection) -> None:
        await dense(connection)
        await connection.piece(whole[:9])
        await asyncio.sleep(0.2)
        await connection.piece(whole[9:])
        await asyncio.sleep(0.2)
        await connection.piece(DONE)
        await connection.end()

    async def body() -> None:
        async with serving(short_dir, script) as stub, stub.session() as session, asyncio.timeout(20):
            got = b"".join([part.data async for part in paced(session)])
            assert got == b"".join(DENSE_PART) + whole + DONE

    run(body())


def test_an_engine_that_dies_while_its_stream_rests(run: Run, short_dir: Path) -> None:
    async def script(connection: Connection) -> None:
        await dense(connection)
        await asyncio.sleep(0.1)
        connection.writer.transport.abort()

    async def body() -> None:
        async with serving(short_dir, script) as stub, stub.session() as session, asyncio.timeout(20):
            with pytest.raises(EngineBroke):
                [part async for part in paced(session)]

    run(body())


def test_leaving_while_the_stream_rests_closes_the_request(run: Run, short_dir: Path) -> None:
    async def script(connection: Connection) -> None:
        await dense(connection)
        await connection.left.wait()

    async def body() -> None:
        async with serving(short_dir, silent) as stub, stub.session() as session, asyncio.timeout(20):
            stub.script = script

            async def read() -> None:
                async for part in paced(session):
                    assert isinstance(part, Piece)

            reading = asyncio.create_task(read())
            while not stub.bodies:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            reading.cancel()
            while stub.departures < 1:
                await asyncio.sleep(0.01)

    run(body())


def test_a_connection_serves_on_after_a_paced_stream(run: Run, short_dir: Path) -> None:
    connections = 0
    request = b"\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while True:
                await reader.readuntil(request)
                await reader.readexactly(2)
                talk = Connection(writer, b"", asyncio.Event())
                await dense(talk)
                await talk.piece(DONE)
                await talk.end()
        except asyncio.IncompleteReadError:
            writer.close()

    async def body() -> None:
        server = await asyncio.start_unix_server(answer, str(short_dir / "s"))
        connector = aiohttp.UnixConnector(path=str(short_dir / "s"))
        began = time.monotonic()
        async with (
            aiohttp.ClientSession("http://engine", connector=connector) as session,
            asyncio.timeout(20),
        ):
            for _ in range(5):
                got = b"".join([part.data async for part in paced(session)])
                assert got == b"".join(DENSE_PART) + DONE
        server.close()
        assert time.monotonic() - began < 20
        assert connections == 1

    run(body())
