"""A Redis that is frozen: once nobody hears of it, commands are refused at once, and go on when it is back."""

import asyncio
import signal
from pathlib import Path

import pytest

from inferq import errors, process
from queues import connection
from queues.connection import connect, take_pulse, translated
from tests.queues.builders import Server, settings_for


async def test_commands_are_refused_while_redis_says_nothing(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection, "PULSE_EVERY", 0.05)
    monkeypatch.setattr(connection, "PULSE_PATIENCE", 0.3)
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT", 1000.0)
    with Server(short_dir) as server:
        settings = settings_for(server.url)
        client = connect(settings)
        pulse = asyncio.create_task(take_pulse(client, settings))
        assert await client.ping()
        server.signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(60):
                while not client.connection_pool.silent:
                    await asyncio.sleep(0.05)
                # Redis is still frozen, and nothing would end by itself for a quarter of an hour.
                with pytest.raises(errors.QueueUnavailable, match="gives no answer"):
                    async with translated():
                        await client.get("x")
        finally:
            server.signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            while client.connection_pool.silent:
                await asyncio.sleep(0.05)
        assert await client.ping()
        await process.end_tasks([pulse])
        await client.aclose()


async def test_a_redis_that_refuses_is_not_silent(short_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "PULSE_EVERY", 0.02)
    with Server(short_dir) as server:
        settings = settings_for(server.url)
        client = connect(settings)
        server.kill()
        pulse = asyncio.create_task(take_pulse(client, settings))
        await asyncio.sleep(0.2)
        assert not pulse.done()
        assert not client.connection_pool.silent
        server.start()
        assert await client.ping()
        await process.end_tasks([pulse])
        await client.aclose()
