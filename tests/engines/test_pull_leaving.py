"""Who leaves a pull leaves no thread behind that still reads, or touches what belongs to the next pull of the name."""

import asyncio
import contextlib
import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from workers.engines.pulling import shelf as module
from workers.engines.pulling.hands import Hands, Left
from workers.engines.pulling.hubs import RemoteFile
from workers.engines.pulling.shelf import Shelf


@pytest.fixture
def file(tmp_path: Path) -> RemoteFile:
    return RemoteFile("a.bin", "https://hub/a.bin", 1, hashlib.sha256(b"a").hexdigest(), None, None)


async def left(work: Any) -> None:
    """Begin it, leave it soon after, and wait until it has unwound."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.05)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_leaving_waits_until_the_thread_has_let_go() -> None:
    hands, ended = Hands(1), threading.Event()

    def slowly() -> None:
        try:
            while True:
                hands.check()
                time.sleep(0.01)
        finally:
            time.sleep(0.1)
            ended.set()

    await left(hands.do(slowly))
    assert ended.is_set()
    with pytest.raises(Left):
        await hands.do(hands.check)
    hands.close()


async def test_leaving_twice_waits_too() -> None:
    hands, gate, ended = Hands(1), threading.Event(), threading.Event()

    def deaf() -> None:
        gate.wait(5)
        ended.set()

    task = asyncio.ensure_future(hands.do(deaf))
    for _ in range(3):
        await asyncio.sleep(0.02)
        task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    hands.close()


async def test_a_pull_left_while_it_places_its_files_spares_the_next_one(
    tmp_path: Path, file: RemoteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is free only when the thread that places has ended; it would remove the next pull's staging."""
    hands = Hands(1)
    link, order = module._link, list[str]()

    def slow_link(there: Path, here: Path) -> None:
        time.sleep(0.2)
        link(there, here)
        order.append("linked")

    monkeypatch.setattr(module, "_link", slow_link)
    first = Shelf(tmp_path, "tiny", hands)
    first.begin()
    first.done(file).write_bytes(b"a")

    async def pull() -> None:
        async with first.locked(lambda: None):
            await hands.do(first.publish, (file,), {"a.bin": "x"}, "acme/tiny", None)

    async def another() -> None:
        await asyncio.sleep(0.02)
        later = Shelf(tmp_path, "tiny", Hands(1))
        async with later.locked(lambda: None):
            order.append("next")
            later.begin()
            await asyncio.sleep(0.5)
            assert later.done(file).read_bytes() == b"a"

    await asyncio.gather(left(pull()), another())
    assert order == ["linked", "next"]
    assert not (tmp_path / "tiny").exists()


async def test_a_pull_left_while_it_checks_what_is_there_ends_at_the_next_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands, size = Hands(1), 64 * 2**20
    (tmp_path / "tiny").mkdir()
    with (tmp_path / "tiny" / "a.bin").open("wb") as big:
        big.truncate(size)
    shelf = Shelf(tmp_path, "tiny", hands)
    monkeypatch.setattr("workers.engines.pulling.download.CHUNK", 2**10)
    file = RemoteFile("a.bin", "https://hub/a.bin", size, "0" * 64, None, None)
    began = time.monotonic()
    await left(hands.do(shelf.standing, (file,), "acme/tiny"))
    seconds = time.monotonic() - began
    began = time.monotonic()
    with contextlib.suppress(Exception):
        Shelf(tmp_path, "tiny", Hands(1)).standing((file,), "acme/tiny")
    assert seconds < (time.monotonic() - began) / 2
