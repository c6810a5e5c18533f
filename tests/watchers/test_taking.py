"""When files are taken, and what keeps them waiting. The watcher runs inside the test, with real Redis and SQLite."""

import asyncio
import contextlib
import logging
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from inferq import errors
from queues.bounds import Bounds
from queues.presence import NodeInfo, Presence
from queues.tenancy import Tenancy
from tests.media import files
from tests.media.servers import Server, answering, response
from tests.watchers.home import Site, listed, read_json, request, until
from watchers import drops, inbox
from watchers.hints import Hints
from watchers.identity import Identity
from watchers.inbox import Inbox, Verdict
from watchers.sightings import Sight


def sight(path: Path, *, quiet: float = 10.0, renamed: bool = False) -> Sight:
    return Sight(Identity.of(path.stat()), 0.0, quiet, renamed)


@pytest.fixture
def taker(site: Site, gateway: Any) -> Inbox:
    return Inbox(site.folders, site.settings, gateway, site.storage)


async def test_a_file_that_is_being_written_is_left_alone(site: Site) -> None:
    slow = site.folders.inbox / "slow.json"
    async with site.watching():
        with slow.open("wb") as writer:
            writer.write(b'{"model": "demo-completion", "prompt": "slow", "user": "x"}')
            writer.flush()
            for name in ("first.json", "second.json"):
                # Each is written in place, so when it is taken, slow.json was at rest for half a second as well.
                (site.folders.inbox / name).write_bytes(b'{"model": "demo-completion", "prompt": "x"}')
                await until(lambda name=name: not (site.folders.inbox / name).exists())
            assert slow.exists()
        await until(lambda: not slow.exists())
    assert len(await site.jobs()) == 3


async def test_half_a_text_may_still_grow(site: Site, taker: Inbox) -> None:
    path = site.folders.inbox / "a.json"
    path.write_bytes(b'{"model": "demo-completion", ')
    assert await taker.take("a.json", sight(path, quiet=inbox.PATIENCE - 0.1)) is Verdict.LATER
    assert path.exists()
    with path.open("ab") as writer:
        writer.write(b'"prompt": "x"}')
    assert await taker.take("a.json", sight(path, quiet=0.5)) is Verdict.DONE
    path.write_bytes(b"{")
    assert await taker.take("a.json", sight(path, quiet=inbox.PATIENCE)) is Verdict.DONE
    assert listed(site.folders.errors) == ["a.error.json", "a.json"]


async def test_a_renamed_file_is_taken_before_the_next_scan(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchers.sightings.QUIET", 1000.0)
    async with site.watching() as watcher:
        await until(lambda: watcher._next_scan > 0)
        monkeypatch.setattr(watcher, "_next_scan", float("inf"))
        site.drop("inside.json")
        outside = site.settings.home / "outside.json"
        outside.write_bytes(b'{"model": "demo-completion", "prompt": "x"}')
        outside.rename(site.folders.inbox / "outside.json")
        await until(lambda: len(listed(site.folders.temp)) == 2, timeout=10)


async def test_a_scan_finds_what_no_event_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hints, "keep_watching", lambda *_: None)
    async with site.watching():
        site.drop("a.json")
        await until(lambda: listed(site.folders.temp))


async def test_the_directory_may_be_removed_and_come_back(site: Site) -> None:
    async with site.watching() as watcher:
        site.drop("one.json")
        await until(lambda: listed(site.folders.temp))
        before = watcher._hints._watched
        shutil.rmtree(site.folders.inbox)
        await until(lambda: site.folders.inbox.exists() and watcher._hints._watched not in (None, before))
        site.drop("two.json")
        await until(lambda: len(listed(site.folders.temp)) == 2)


async def test_hidden_files_links_and_folders_stay(site: Site) -> None:
    raw = site.folders.inbox
    (raw / ".hidden.json").write_bytes(b"{}")
    (raw / "a.json.part").write_bytes(b"{}")
    (raw / "link.json").symlink_to("/etc/hostname")
    (raw / "folder.json").mkdir()
    async with site.watching():
        site.drop("real.json")
        await until(lambda: listed(site.folders.temp))
    assert len(list(raw.iterdir())) == 4
    assert not listed(site.folders.errors)


async def test_a_large_file_and_a_strange_name_are_refused(site: Site) -> None:
    with (site.folders.inbox / "large.json").open("wb") as file:
        file.truncate(site.settings.api.max_body + 1)
    strange = bytes(site.folders.inbox) + b"/\xff.json"
    Path(strange.decode(errors="surrogateescape")).write_bytes(b'{"model": "demo-completion", "prompt": "x"}')
    async with site.watching():
        await until(lambda: len(listed(site.folders.errors)) == 4)
    assert read_json(site.error("large.error.json"))["code"] == "body_too_large"
    assert not await site.jobs()


async def test_the_same_name_again_is_numbered(site: Site) -> None:
    async with site.watching(), site.working():
        for number in range(1, 4):
            site.drop("a.json", prompt=str(number))
            await until(lambda number=number: len(listed(site.folders.archive)) == number)
            site.drop("bad.json", b"{")
            await until(lambda number=number: len(listed(site.folders.errors)) == 2 * number)
    assert listed(site.folders.results) == ["a-2.json", "a-3.json", "a.json"]
    assert read_json(site.result("a-3.json"))["result"]["choices"][0]["text"] == "3"
    assert listed(site.folders.errors)[:3] == ["bad-2.error.json", "bad-2.json", "bad-3.error.json"]


async def test_a_file_moved_back_runs_again(site: Site) -> None:
    async with site.watching(), site.working():
        site.drop("fail.json", prompt="fail")
        await until(lambda: site.error("fail.json").exists())
        site.error("fail.json").rename(site.folders.inbox / "fail.json")
        await until(lambda: site.error("fail-2.json").exists())
    assert site.runs["fail"] == len(await site.jobs()) == 2
    assert listed(site.folders.errors) == ["fail-2.error.json", "fail-2.json", "fail.error.json"]


async def test_redis_away_is_no_reason_to_wait(site: Site) -> None:
    (server,) = (p for p in psutil.process_iter(["cmdline"]) if _serves(p, site))
    async with site.watching():
        server.send_signal(signal.SIGKILL)
        site.drop("a.json")
        site.drop("b.json")
        await until(lambda: len(listed(site.folders.temp)) == 2)
    assert [job.state for job in await site.jobs()] == ["queued", "queued"]


def _serves(process: psutil.Process, site: Site) -> bool:
    socket = site.settings.redis_url.removeprefix("unix://")
    return any(socket in part for part in process.info["cmdline"] or ())


async def test_sql_away_leaves_files_and_is_said_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("watchers.service.LONGEST_PAUSE", 0.05)
    monkeypatch.setattr("watchers.service.FIRST_PAUSE", 0.05)
    tries = Counter[str]()
    take = Inbox.take

    async def counted(self: Inbox, name: str, seen: Sight) -> Verdict:
        tries[name] += 1
        return await take(self, name, seen)

    monkeypatch.setattr(Inbox, "take", counted)
    async with site.watching():
        await until(lambda: "watching" in caplog.text)
        _rename_table(site, "jobs", "hidden")
        site.drop("a.json")
        await until(lambda: tries["a.json"] > 5)
        assert listed(site.folders.inbox) == ["a.json"]
        _rename_table(site, "hidden", "jobs")
        await until(lambda: listed(site.folders.temp))
        await until(lambda: "taking files: works again" in caplog.text)
    assert caplog.text.count("taking files: the database") == 1


def _rename_table(site: Site, old: str, new: str) -> None:
    with contextlib.closing(sqlite3.connect(site.settings.home / "inferq.db")) as database:
        database.execute(f"ALTER TABLE {old} RENAME TO {new}")


async def test_a_defect_stops_no_other_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read = drops.read

    def broken(path: Path, *rest: Any) -> Any:
        if path.name == "a.json":
            raise RuntimeError("a defect")
        return read(path, *rest)

    monkeypatch.setattr(drops, "read", broken)
    site.drop("a.json")
    site.drop("b.json", request())
    async with site.watching():
        await until(lambda: listed(site.folders.temp))
    assert listed(site.folders.inbox) == ["a.json"]


def showing(*urls: str) -> dict[str, Any]:
    """A request of a conversation that shows these pictures."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": "demo-chat", "messages": [{"role": "user", "content": parts}]}


@contextlib.asynccontextmanager
async def pictures(seconds: float = 0.0) -> AsyncIterator[Server]:
    """A server of pictures that takes its time."""

    async def answer(_server: Server, _path: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        writer.write(response(files.picture("PNG")))
        await writer.drain()

    async with answering(answer) as server:
        yield server


async def test_a_file_with_slow_urls_holds_up_no_other(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async with pictures(3600) as server, site.watching():
        for number in range(3):
            site.drop(f"slow{number}.json", showing(server.url(), server.url()))
        await until(lambda: len(server.heads) == 6)
        site.drop("quick.json")
        await until(lambda: len(listed(site.folders.temp)) == 1, timeout=10)
    assert listed(site.folders.inbox) == ["slow0.json", "slow1.json", "slow2.json"]


async def test_files_with_slow_urls_are_bounded_and_become_jobs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchers.service.MOST_ASIDE", 2)
    monkeypatch.setattr("watchers.service.SLOW", 0.01)
    most = 0
    async with pictures(0.3) as server, site.watching() as watcher:
        for number in range(5):
            site.drop(f"{number}.json", showing(server.url()))

        def all_taken() -> bool:
            nonlocal most
            most = max(most, len(watcher._aside))
            return len(listed(site.folders.temp)) == 5

        await until(all_taken)
        await until(lambda: not watcher._aside)
    assert most == 2
    assert len(server.heads) == len(await site.jobs()) == 5


async def test_nothing_is_fetched_while_the_queue_is_full(
    site: Site, gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = Tenancy(None)
    bounds = Bounds(site.settings, nobody)
    none = site.settings.queue.model_copy(update={"max_queue_size": 0})
    full = Bounds(site.settings.model_copy(update={"queue": none}), nobody)
    monkeypatch.setattr(gateway.queue, "_bounds", full)
    taker = Inbox(site.folders, site.settings, gateway, site.storage)
    async with pictures() as server:
        path = site.drop("a.json", showing(server.url()))
        for _ in range(3):
            with pytest.raises(errors.QueueFull) as caught:
                await taker.take("a.json", sight(path))
        assert caught.value.details["model"] == "demo-chat"
        assert not server.heads
        monkeypatch.setattr(gateway.queue, "_bounds", bounds)
        assert await taker.take("a.json", sight(path)) is Verdict.DONE
        assert len(server.heads) == 1


async def test_a_model_that_fits_no_device_is_refused_as_the_api_does(site: Site, gateway: Any) -> None:
    device = {"name": "cuda:0", "memory_total": 2**30}
    info = NodeInfo(name="n", pid=1, seen_at=time.time(), devices=[device])
    await Presence(site.redis, site.settings.queue.prefix).show_node(info)
    big = site.settings.models["demo-chat"].model_copy(update={"memory": 2**40})
    settings = site.settings.model_copy(update={"models": {"demo-chat": big}})
    taker = Inbox(site.folders, settings, gateway, site.storage)
    path = site.drop("a.json", {"model": "demo-chat", "messages": [{"role": "user", "content": "x"}]})
    assert await taker.take("a.json", sight(path)) is Verdict.DONE
    assert read_json(site.error("a.error.json"))["code"] == "model_too_large"
    assert not await site.jobs()
