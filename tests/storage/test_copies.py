"""Local files of artifacts: the blob itself, or a copy that stays while somebody holds it."""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferq import errors
from storage.artifacts import COPIES_FOLDER, ArtifactStore
from storage.copies import Copies


async def remote(home: Path, limit: int = 1000) -> ArtifactStore:
    return await ArtifactStore.open(f"memory://{home}", home, copies_bytes=limit)


def copies(home: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (home / COPIES_FOLDER).iterdir()}


def aged(home: Path, sha256: str, seconds: float) -> None:
    path = home / COPIES_FOLDER / sha256
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


async def test_a_local_artifact_is_its_own_local_file(home: Path):
    store = await ArtifactStore.open("artifacts", home)
    artifact = await store.put(b"hello", "text/plain")
    async with store.local_path(artifact.sha256) as path:
        assert path == home / "artifacts" / artifact.sha256[:2] / artifact.sha256
        assert path.read_bytes() == b"hello"
    assert not (home / COPIES_FOLDER).exists()


@pytest.mark.parametrize("url", ["artifacts", "memory://{home}"])
@pytest.mark.parametrize("sha256", ["0" * 64, "../../etc/passwd", "", "A" * 64])
async def test_what_is_not_there(home: Path, url: str, sha256: str):
    store = await ArtifactStore.open(url.format(home=home), home)
    with pytest.raises(errors.NotFound):
        async with store.local_path(sha256):
            pass


async def test_a_remote_artifact_is_copied_once(home: Path, monkeypatch: pytest.MonkeyPatch):
    store = await remote(home)
    artifact = await store.put(b"hello", "text/plain")
    assert copies(home) == {}
    async with store.local_path(artifact.sha256) as path:
        assert path.read_bytes() == b"hello"
    monkeypatch.setattr(store._blobs, "read", None)
    async with store.local_path(artifact.sha256) as path, store.local_path(artifact.sha256) as again:
        assert path.read_bytes() == b"hello"
        assert path == again
    assert copies(home) == {artifact.sha256: 5}


async def test_many_readers_share_one_download(home: Path, monkeypatch: pytest.MonkeyPatch):
    store = await remote(home)
    artifact = await store.put(b"hello", "text/plain")
    reads, whole = [], store._blobs.read

    def counted(*arguments: object) -> bytes:
        reads.append(arguments)
        return whole(*arguments)

    monkeypatch.setattr(store._blobs, "read", counted)

    async def reader() -> bytes:
        async with store.local_path(artifact.sha256) as path:
            return path.read_bytes()

    assert await asyncio.gather(*(reader() for _ in range(20))) == [b"hello"] * 20
    assert len(reads) == 1
    assert not store._copying


async def test_copies_used_longest_ago_make_room(home: Path):
    store = await remote(home, limit=250)
    found = [(await store.put(bytes([number]) * 100, "text/plain")).sha256 for number in range(3)]
    for number, sha256 in enumerate(found[:2]):
        async with store.local_path(sha256):
            pass
        aged(home, sha256, 100 - number)
    async with store.local_path(found[0]):
        pass
    async with store.local_path(found[2]):
        pass
    assert set(copies(home)) == {found[0], found[2]}


async def test_a_copy_in_use_stays_also_when_room_is_short(home: Path):
    store = await remote(home, limit=150)
    held, second, third = [
        (await store.put(bytes([number]) * 100, "text/plain")).sha256 for number in range(3)
    ]
    async with store.local_path(held) as path:
        aged(home, held, 1000)
        async with store.local_path(second), store.local_path(third):
            assert set(copies(home)) == {held, second, third}
        assert path.read_bytes() == b"\x00" * 100
    async with store.local_path(second):
        pass
    aged(home, third, 500)
    await asyncio.to_thread(store._copies.evict)
    assert set(copies(home)) == {second}


async def test_another_process_holds_a_copy_until_it_dies(home: Path):
    store = await remote(home, limit=10)
    artifact = await store.put(b"x" * 100, "text/plain")
    async with store.local_path(artifact.sha256):
        pass
    code = (
        "import sys; from pathlib import Path; from storage.copies import Copies\n"
        "held = Copies(Path(sys.argv[1]), 0).take(sys.argv[2])\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(home / COPIES_FOLDER), artifact.sha256]
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        store._copies.evict()
        assert set(copies(home)) == {artifact.sha256}
        holder.kill()
    store._copies.evict()
    assert copies(home) == {}


async def test_a_copy_that_vanishes_is_made_again(home: Path):
    store = await remote(home)
    artifact = await store.put(b"hello", "text/plain")
    async with store.local_path(artifact.sha256) as path:
        pass
    path.unlink()
    async with store.local_path(artifact.sha256) as path:
        assert path.read_bytes() == b"hello"


async def test_damaged_bytes_are_not_handed_out(home: Path):
    store = await remote(home)
    artifact = await store.put(b"hello", "text/plain")
    store._blobs.fs.pipe_file(store._blobs.path(artifact.sha256), b"hellO")
    with pytest.raises(errors.StoreUnavailable, match="damaged"):
        async with store.local_path(artifact.sha256):
            pass
    assert copies(home) == {}


async def test_a_cancelled_reader_leaves_nothing_held(home: Path, monkeypatch: pytest.MonkeyPatch):
    store = await remote(home, limit=0)
    artifact = await store.put(b"hello", "text/plain")
    begun = asyncio.Event()

    async def slow(*_: object) -> AsyncIterator[bytes]:
        yield b"he"
        begun.set()
        await asyncio.Event().wait()

    async def reader() -> None:
        async with store.local_path(artifact.sha256):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(store, "open_read", slow)
        task = asyncio.create_task(reader())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert copies(home) == {}
    # Cancelled at its last step, when the copy is made and held: let go, it can be evicted.
    evict, loop = store._copies.evict, asyncio.get_running_loop()

    def cancels() -> None:
        loop.call_soon_threadsafe(task.cancel)
        time.sleep(0.1)

    monkeypatch.setattr(store._copies, "evict", cancels)
    task = asyncio.create_task(reader())
    await asyncio.wait([task])
    assert task.cancelled()
    assert set(copies(home)) == {artifact.sha256}
    evict()
    assert copies(home) == {}


def test_who_made_a_copy_first_keeps_its_name(tmp_path: Path):
    kept = Copies(tmp_path, 0)
    name = hashlib.sha256(b"x").hexdigest()
    drafts = [tmp_path / "1", tmp_path / "2"]
    for draft in drafts:
        draft.write_bytes(b"x")
    first = kept.add(drafts[0], name)
    inode = kept.path(name).stat().st_ino
    second = kept.add(drafts[1], name)
    assert kept.path(name).stat().st_ino == inode
    assert first is not None
    assert second is not None
    for descriptor in (first, second):
        kept.evict()
        assert kept.path(name).exists()
        os.close(descriptor)
    kept.evict()
    assert not kept.path(name).exists()


async def test_an_upload_is_looked_into_before_it_is_stored(home: Path):
    for url in ("artifacts", f"memory://{home}"):
        store = await ArtifactStore.open(url, home)
        async with store.upload() as upload:
            await upload.write(b"hel")
            await upload.write(b"lo")
            path = await upload.local()
            assert path.read_bytes() == b"hello"
            assert (upload.size, upload.sha256) == (5, hashlib.sha256(b"hello").hexdigest())
            assert await store.stat(upload.sha256) is None
        assert not path.exists()
        assert await store.stat(upload.sha256) is None
        async with store.upload() as upload:
            await upload.write(b"hello")
            assert await upload.commit("text/plain") == await store.stat(upload.sha256)
            assert not upload._draft.path.exists()
    assert copies(home) == {}


async def test_drafts_of_killed_writers_are_swept(home: Path):
    store = await remote(home)
    artifact = await store.put(b"hello", "text/plain")
    async with store.local_path(artifact.sha256):
        pass
    left = home / COPIES_FOLDER / ("a" * 32)
    left.write_bytes(b"half")
    assert await store.sweep() == 0
    os.utime(left, (1, 1))
    aged(home, artifact.sha256, 1_000_000)
    assert await store.sweep() == 1
    assert set(copies(home)) == {artifact.sha256}
