"""Results reach their files, whatever is in the way."""

import asyncio
import hashlib
import os
import sqlite3
from contextlib import closing
from typing import Any

import orjson
import pytest

from inferq.job import JobState
from queues import Gateway
from storage.artifacts import ArtifactStore
from tests.watchers.home import Site, listed, read_json, until
from watchers import moves
from watchers.outbox import BATCH, Outbox


async def taken(site: Site, count: int = 1) -> None:
    await until(lambda: len(listed(site.folders.temp)) == count)


async def until_delivered(site: Site) -> None:
    async with asyncio.timeout(20):
        while await site.storage.ledger.undelivered("file:"):
            await asyncio.sleep(0.01)


async def test_a_full_disk_delays_results_and_loses_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchers.outbox.RETRY_AFTER", 0.05)
    fsync, tries = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal tries
        tries += 1
        raise OSError(28, "No space left on device")

    async with site.watching():
        for number in range(BATCH + 2):
            site.drop(f"{number}.json")
        await taken(site, BATCH + 2)
        monkeypatch.setattr(moves.os, "fsync", full)
        async with site.working():
            await until(lambda: tries > 3 * BATCH)
            assert not listed(site.folders.results)
            assert len(listed(site.folders.temp)) == BATCH + 2
            monkeypatch.setattr(moves.os, "fsync", fsync)
            await until(lambda: len(listed(site.folders.archive)) == BATCH + 2)
    assert len(list(site.folders.results.iterdir())) == BATCH + 2
    assert set(site.runs.values()) == {1}


async def test_one_result_that_cannot_be_written_stops_no_other(site: Site) -> None:
    (site.folders.results / "a.json").mkdir()
    async with site.watching(), site.working():
        for name in ("a.json", "b.json"):
            site.drop(name)
        await until(lambda: listed(site.folders.archive) == ["b.json"])
        (site.folders.results / "a.json").rmdir()
        await until(lambda: listed(site.folders.archive) == ["a.json", "b.json"])


async def test_a_removed_job_file_still_has_a_result(site: Site) -> None:
    async with site.watching():
        site.drop("a.json")
        await taken(site)
        next(path for path in site.folders.temp.iterdir() if path.name.endswith("a.json")).unlink()
        async with site.working():
            await until(lambda: listed(site.folders.results))
            await until_delivered(site)
    assert not listed(site.folders.archive)


async def test_a_cancelled_job_is_an_error(site: Site, gateway: Gateway) -> None:
    async with site.watching():
        site.drop("a.json")
        await taken(site)
        await gateway.intake.cancel((await site.jobs())[0].id)
        await until(lambda: listed(site.folders.errors) == ["a.error.json", "a.json"])
    assert read_json(site.error("a.error.json"))["code"] == "cancelled"


async def test_a_large_result_lies_beside_it(site: Site) -> None:
    sound = os.urandom(3 << 20)
    artifact = await site.storage.artifacts.put(sound, "audio/mpeg")
    async with site.watching():
        site.drop("a.json")
        await taken(site)
        await site.work_once(artifact=artifact.sha256, result_type="audio/mpeg")
        await until(lambda: listed(site.folders.archive))
    told = read_json(site.result("a.json"))
    assert told["result"] is None
    assert told["artifact"] == {
        "sha256": hashlib.sha256(sound).hexdigest(),
        "media_type": "audio/mpeg",
        "size": len(sound),
        "file": f"a.{artifact.sha256[:12]}.mp3",
    }
    assert site.result(told["artifact"]["file"]).read_bytes() == sound


async def test_pictures_lie_beside_their_result(site: Site) -> None:
    artifact = await site.storage.artifacts.put(b"a picture", "image/png")
    gone = {"artifact": "0" * 64}
    async with site.watching():
        site.drop("a.json", {"model": "demo-image", "prompt": "a house", "seed": 1})
        await taken(site)
        answer = orjson.dumps({"data": [{"artifact": artifact.sha256, "seed": 1}, gone]})
        await site.work_once(model="demo-image", result=answer)
        await until(lambda: listed(site.folders.archive))
    first, second = read_json(site.result("a.json"))["result"]["data"]
    assert first["file"] == f"a.{artifact.sha256[:12]}.png"
    assert site.result(first["file"]).read_bytes() == b"a picture"
    assert second == gone


async def test_a_lost_artifact_is_named_only(site: Site) -> None:
    async with site.watching():
        site.drop("a.json")
        await taken(site)
        await site.work_once(artifact="0" * 64)
        await until(lambda: listed(site.folders.archive))
    assert read_json(site.result("a.json"))["artifact"]["file"] is None


async def test_a_result_of_an_earlier_life_is_written_once_more_not_twice(site: Site) -> None:
    async with site.watching(), site.working():
        for name, prompt in (("a.json", "fine"), ("b.json", "fail")):
            site.drop(name, prompt=prompt)
        await until(lambda: len(listed(site.folders.archive)) == 1 and len(listed(site.folders.errors)) == 2)
        await until_delivered(site)
    with closing(sqlite3.connect(site.settings.home / "inferq.db")) as database:
        database.execute("UPDATE jobs SET delivered = 0")
        database.commit()
    site.result("a.json").unlink()
    outbox = Outbox(site.folders, site.storage.ledger, site.storage.artifacts, 1000)
    assert await outbox.deliver_some() == 2
    assert await outbox.deliver_some() == 0
    assert listed(site.folders.results) == listed(site.folders.archive) == ["a.json"]
    assert listed(site.folders.errors) == ["b.error.json", "b.json"]


async def test_a_requeued_job_replaces_its_own_result(site: Site, gateway: Gateway) -> None:
    async with site.watching(), site.working():
        site.drop("a.json", prompt="first")
        await until(lambda: listed(site.folders.archive))
        await until_delivered(site)
        (job,) = await site.jobs()
        body = b'{"model": "demo-completion", "prompt": "second"}'
        await gateway.intake.requeue(job.id, edits={"body": body})
        await until(lambda: b"SECOND" in site.result("a.json").read_bytes())
    assert listed(site.folders.results) == ["a.json"]


async def test_the_artifact_store_may_be_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchers.outbox.RETRY_AFTER", 0.05)
    artifact = await site.storage.artifacts.put(b"large", "text/plain")
    folder = site.settings.home / "artifacts"
    async with site.watching():
        site.drop("a.json")
        await taken(site)
        stat, calls = ArtifactStore.stat, 0

        async def counted(self: ArtifactStore, sha256: str) -> Any:
            nonlocal calls
            calls += 1
            return await stat(self, sha256)

        monkeypatch.setattr(ArtifactStore, "stat", counted)
        away = folder.rename(folder.with_suffix(".away"))
        folder.write_text("not a folder")
        await site.work_once(artifact=artifact.sha256, result_type="text/plain")
        await until(lambda: calls > 2)
        assert not listed(site.folders.archive)
        folder.unlink()
        away.rename(folder)
        await until(lambda: listed(site.folders.archive))
    assert (await site.jobs())[0].state is JobState.SUCCEEDED
