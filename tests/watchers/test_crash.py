"""The watcher is killed at each step; no file is lost, none runs twice, each has one result."""

import os
import signal
import sqlite3
from contextlib import closing

import pytest

from inferq import failpoints
from queues import Gateway
from tests.media.files import picture
from tests.media.servers import answering, raw, response
from tests.watchers.home import Site, listed, until
from watchers import moves
from watchers.drops import identify
from watchers.inbox import Inbox, Verdict
from watchers.outbox import Outbox
from watchers.sightings import Sight

FILES = 60


class Killed(BaseException):
    """The process ends at this point."""


def die(*_: object) -> None:
    raise Killed


async def accept_and_die(site: Site, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The job is committed, its file still in the watched directory."""
    path = site.drop(name)
    inbox = Inbox(site.folders, site.settings, gateway, site.storage)
    seen = identify(path)
    assert seen is not None
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(moves, "move_if", die)
        await inbox.take(name, Sight(seen, 0.0, 9.0, True))
    assert path.exists()


async def test_killed_between_commit_and_move(
    site: Site, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await accept_and_die(site, gateway, monkeypatch, "a.json")
    async with site.watching():
        await until(lambda: listed(site.folders.temp))
        async with site.working():
            await until(lambda: listed(site.folders.archive))
    assert site.runs["a.json"] == len(await site.jobs()) == 1


async def test_killed_between_commit_and_move_and_the_job_ends_meanwhile(
    site: Site, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await accept_and_die(site, gateway, monkeypatch, "a.json")
    await site.work_once()
    outbox = Outbox(site.folders, site.storage.ledger, site.storage.artifacts, 1000)
    assert await outbox.deliver_some() == 1
    assert not listed(site.folders.inbox)
    assert listed(site.folders.archive) == listed(site.folders.results) == ["a.json"]


async def test_the_file_of_an_ended_job_is_not_taken_for_another_run(
    site: Site, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await accept_and_die(site, gateway, monkeypatch, "a.json")
    await site.work_once()
    inbox = Inbox(site.folders, site.settings, gateway, site.storage)
    seen = identify(site.folders.inbox / "a.json")
    assert seen is not None
    assert await inbox.take("a.json", Sight(seen, 0.0, 9.0, True)) is Verdict.DONE
    assert len(listed(site.folders.temp)) == len(await site.jobs()) == 1


async def test_a_committed_job_is_not_refused_because_its_url_is_gone(
    site: Site, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(raw(response(picture("PNG")))) as server:
        parts = [{"type": "image_url", "image_url": {"url": server.url()}}]
        body = {"model": "demo-chat", "messages": [{"role": "user", "content": parts}]}
        path = site.drop("a.json", body)
        inbox, seen = Inbox(site.folders, site.settings, gateway, site.storage), identify(path)
        assert seen is not None
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(moves, "move_if", die)
            await inbox.take("a.json", Sight(seen, 0.0, 9.0, True))
    assert await inbox.take("a.json", Sight(seen, 0.0, 9.0, True)) is Verdict.DONE
    assert len(listed(site.folders.temp)) == len(await site.jobs()) == 1
    assert not listed(site.folders.errors)


async def test_jobs_that_ended_while_no_watcher_ran(site: Site) -> None:
    async with site.watching():
        site.drop("a.json")
        site.drop("fail.json", prompt="fail")
        await until(lambda: len(listed(site.folders.temp)) == 2)
    while await site.work_once():
        pass
    async with site.watching():
        await until(lambda: not listed(site.folders.temp))
    assert listed(site.folders.results) == listed(site.folders.archive) == ["a.json"]
    assert listed(site.folders.errors) == ["fail.error.json", "fail.json"]


async def test_a_new_file_of_that_name_is_not_taken_for_the_old_one(
    site: Site, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await accept_and_die(site, gateway, monkeypatch, "a.json")
    site.drop("a.json", prompt="newer")
    await site.work_once()
    async with site.watching(), site.working():
        await until(lambda: len(listed(site.folders.results)) == 2)
    assert site.runs == {"a.json": 1, "newer": 1}


@pytest.mark.parametrize("step", ["write_whole", "move_numbered"])
async def test_killed_while_delivering(site: Site, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    async with site.watching():
        site.drop("a.json")
        site.drop("fail.json", prompt="fail")
        await until(lambda: len(listed(site.folders.temp)) == 2)
    while await site.work_once():
        pass
    outbox = Outbox(site.folders, site.storage.ledger, site.storage.artifacts, 1000)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(moves, step, die)
        await outbox.deliver_some()
    assert await outbox.deliver_some() == 2
    assert listed(site.folders.results) == listed(site.folders.archive) == ["a.json"]
    assert listed(site.folders.errors) == ["fail.error.json", "fail.json"]
    assert not listed(site.folders.temp)


async def test_files_without_a_job_go_back(site: Site) -> None:
    known = "0189f7e4-0000-7000-8000-000000000001"
    for name in (f"{known}.lost.json", "stranger.json"):
        (site.folders.temp / name).write_bytes(b"{}")
    async with site.watching():
        await until(lambda: len(listed(site.folders.errors)) == 4)
    assert "lost.json" in listed(site.folders.errors)
    assert "stranger.json" in listed(site.folders.errors)


async def test_a_file_whose_job_was_delivered_goes_to_its_last_place(site: Site) -> None:
    async with site.watching():
        site.drop("a.json")
        await until(lambda: listed(site.folders.temp))
    await site.work_once()
    with closing(sqlite3.connect(site.settings.home / "inferq.db")) as database:
        database.execute("UPDATE jobs SET delivered = 1")
        database.commit()
    async with site.watching():
        await until(lambda: listed(site.folders.archive) == ["a.json"])
    assert not listed(site.folders.temp)


async def test_what_a_predecessor_did_not_finish_writing_is_removed(site: Site) -> None:
    leftover = site.folders.results / ".0123.inferq"
    leftover.write_text("half")
    with site.process():
        await until(lambda: not leftover.exists())


async def test_killed_between_the_commit_and_the_queue(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.drop("a.json")
    monkeypatch.setenv(failpoints.VARIABLE, "intake.committed:kill")
    with site.process() as running:
        await until(lambda: running.poll() is not None)
    monkeypatch.delenv(failpoints.VARIABLE)
    async with site.working():
        with site.process():
            await until(lambda: listed(site.folders.archive) == ["a.json"])
    assert site.runs == {"a.json": 1}


async def test_kill_9_again_and_again(site: Site) -> None:
    for number in range(FILES):
        site.drop(f"{number}.json")
    folders = site.folders
    moments = [
        lambda: listed(folders.temp),
        lambda: len(listed(folders.temp)) > FILES // 3,
        lambda: listed(folders.results),
        lambda: len(listed(folders.archive)) > FILES // 3,
        lambda: any(name.endswith(".inferq") for name in os.listdir(folders.results)),
    ]
    async with site.working():
        for moment in moments:
            with site.process() as running:
                await until(lambda moment=moment: moment() or len(listed(folders.archive)) == FILES)
                running.send_signal(signal.SIGKILL)
        with site.process():
            await until(lambda: len(listed(folders.archive)) == FILES, timeout=60)
    names = sorted(f"{number}.json" for number in range(FILES))
    assert listed(folders.results) == listed(folders.archive) == names
    assert not listed(folders.inbox) + listed(folders.temp) + listed(folders.errors)
    assert site.runs == dict.fromkeys(names, 1)
    assert len(await site.jobs()) == FILES
