"""The scheduler process as a whole: that its loops run, and end."""

import asyncio
import os
from pathlib import Path

from inferq.config.sections import Media
from queues.scheduler import Scheduler
from storage import migrate
from storage.artifacts import LEFTOVER_AGE, ArtifactStore
from storage.keys import KeyStore
from storage.ledger import Ledger
from storage.media import MediaStore
from storage.opening import Storage
from tests.queues.builders import eventually, settings_for

URL = "sqlite:///inferq.db"


async def test_it_removes_what_killed_writers_left(redis_url: str, tmp_path: Path):
    await migrate.upgrade(URL, tmp_path)
    artifacts = await ArtifactStore.open("artifacts", tmp_path)
    kept = await artifacts.put(b"an artifact")
    (temp,) = tmp_path.glob("artifacts/**/temp")
    old, young = temp / "old", temp / "young"
    for file in (old, young):
        file.write_bytes(b"half of one")
    long_ago = old.stat().st_mtime - LEFTOVER_AGE - 60
    os.utime(old, (long_ago, long_ago))
    ledger = await Ledger.open(URL, tmp_path)
    media = MediaStore(artifacts, Media())
    storage = Storage(ledger, KeyStore(ledger.database), artifacts, media)
    stopping = asyncio.Event()
    running = asyncio.create_task(Scheduler(settings_for(redis_url), storage).run(stopping))
    await eventually(lambda: asyncio.to_thread(lambda: not old.exists()))
    assert young.exists()
    assert await artifacts.stat(kept.sha256)
    stopping.set()
    await asyncio.wait_for(running, 20)
    await ledger.close()
