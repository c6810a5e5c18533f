"""The artifact store, on the local file system and on another one that fsspec knows."""

import asyncio
import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferq import errors
from storage.artifacts import CHUNK, Artifact, ArtifactStore
from storage.blobs import Draft


@pytest.fixture(params=["local", "memory"])
async def store(request: pytest.FixtureRequest, home: Path) -> ArtifactStore:
    return await ArtifactStore.open("artifacts" if request.param == "local" else f"memory://{home}", home)


@pytest.fixture
async def local(home: Path) -> ArtifactStore:
    return await ArtifactStore.open("artifacts", home)


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(store: ArtifactStore, sha256: str, *bounds: int | None) -> bytes:
    return b"".join([chunk async for chunk in store.open_read(sha256, *bounds)])


def files(home: Path) -> set[str]:
    root = home / "artifacts"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * (CHUNK + 1)], ids=["empty", "short", "long"])
async def test_bytes_are_read_back_by_their_digest(store: ArtifactStore, data: bytes):
    artifact = await store.put(data, "audio/wav")
    assert artifact == Artifact(hashlib.sha256(data).hexdigest(), len(data), "audio/wav")
    assert await store.stat(artifact.sha256) == artifact
    assert await read(store, artifact.sha256) == data


async def test_a_stream_is_stored_like_the_same_bytes(store: ArtifactStore):
    streamed = await store.put(pieces(b"he", b"", b"llo"), "text/plain")
    assert streamed == await store.put(b"hello", "text/plain")


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 3, b"012"),
        (3, None, b"3456789"),
        (4, 5, b"4"),
        (8, 99, b"89"),
        (5, 5, b""),
        (99, None, b""),
        (-5, 2, b"01"),
    ],
)
async def test_ranges(store: ArtifactStore, start: int, end: int | None, expected: bytes):
    artifact = await store.put(b"0123456789", "text/plain")
    assert await read(store, artifact.sha256, start, end) == expected


async def test_long_reads_come_in_pieces(store: ArtifactStore):
    artifact = await store.put(b"x" * (2 * CHUNK + 1), "text/plain")
    assert [len(chunk) async for chunk in store.open_read(artifact.sha256)] == [CHUNK, CHUNK, 1]


async def test_same_bytes_are_kept_once_with_their_first_media_type(local: ArtifactStore, home: Path):
    first = await local.put(b"same", "image/png")
    before = files(home)
    assert await local.put(b"same", "text/plain") == first
    assert files(home) == before
    assert len(before) == 2


@pytest.mark.parametrize("sha256", ["0" * 64, "../../etc/passwd", "", "A" * 64, "0" * 63])
async def test_what_is_not_there(store: ArtifactStore, sha256: str):
    assert await store.stat(sha256) is None
    with pytest.raises(errors.NotFound):
        await read(store, sha256)


async def test_a_sidecar_is_not_an_artifact(local: ArtifactStore):
    artifact = await local.put(b"data", "text/plain")
    assert await local.stat(f"{artifact.sha256}.json") is None


async def test_an_error_of_the_stream_goes_through_and_leaves_nothing(local: ArtifactStore, home: Path):
    async def broken() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await local.put(broken(), "text/plain")
    assert files(home) == set()


async def test_a_cancelled_writer_leaves_nothing(local: ArtifactStore, home: Path):
    begun = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield b"begun"
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(local.put(waiting(), "text/plain"))
    await begun.wait()
    assert len(files(home)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(home) == set()


async def test_a_killed_writer_leaves_no_artifact_and_is_swept(local: ArtifactStore, home: Path):
    command = [sys.executable, "-m", "tests.storage.peer", "endless", "unused", str(home)]
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        writer.stdin.write("\n")
        writer.stdin.flush()
        for expected in ("ready\n", "chunk\n", "chunk\n"):
            assert writer.stdout.readline() == expected
        writer.kill()
    (left,) = files(home)
    assert left.startswith("temp/")
    assert await local.sweep() == 0
    day_ago = (home / "artifacts" / left).stat().st_mtime - 86_401
    os.utime(home / "artifacts" / left, (day_ago, day_ago))
    assert await local.sweep() == 1
    assert files(home) == set()


async def test_sweep_leaves_artifacts_alone(store: ArtifactStore):
    artifact = await store.put(b"kept", "text/plain")
    assert await store.sweep(age=-60.0) == 0
    assert await read(store, artifact.sha256) == b"kept"


async def test_a_writer_killed_before_the_last_rename_has_stored_nothing(
    local: ArtifactStore, home: Path, monkeypatch: pytest.MonkeyPatch
):
    put_sidecar = Draft._put_sidecar

    def dies_after(draft: Draft, artifact: Artifact) -> None:
        put_sidecar(draft, artifact)
        raise KeyboardInterrupt

    monkeypatch.setattr(Draft, "_put_sidecar", dies_after)
    draft = Draft(local._blobs)
    draft.write(b"data")
    with pytest.raises(KeyboardInterrupt):
        draft.commit("image/png")
    monkeypatch.undo()
    assert await local.stat(hashlib.sha256(b"data").hexdigest()) is None
    again = await local.put(b"data", "text/plain")
    assert await local.stat(again.sha256) == Artifact(again.sha256, 4, "text/plain")


async def test_bytes_without_a_sidecar_are_given_out(local: ArtifactStore, home: Path):
    artifact = await local.put(b"data", "image/png")
    next((home / "artifacts").glob("*/*.json")).unlink()
    assert await local.stat(artifact.sha256) == Artifact(artifact.sha256, 4, "application/octet-stream")


async def test_bytes_cut_short_are_an_error_not_a_short_answer(
    local: ArtifactStore, monkeypatch: pytest.MonkeyPatch
):
    artifact = await local.put(b"data", "image/png")
    monkeypatch.setattr(local._blobs, "read", lambda *_: b"")
    with pytest.raises(errors.StoreUnavailable):
        await read(local, artifact.sha256)


async def test_short_reads_are_continued(local: ArtifactStore, monkeypatch: pytest.MonkeyPatch):
    artifact, whole = await local.put(b"0123456789", "text/plain"), local._blobs.read
    monkeypatch.setattr(
        local._blobs, "read", lambda sha256, start, end: whole(sha256, start, min(end, start + 3))
    )
    assert await read(local, artifact.sha256) == b"0123456789"


async def test_a_full_disk_says_so_and_leaves_nothing(
    local: ArtifactStore, home: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.StoreUnavailable, match="disk is full"):
        await local.put(b"data", "image/png")
    assert files(home) == set()


async def test_where_the_store_lies_is_for_the_log(
    local: ArtifactStore, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    artifact = await local.put(b"data", "image/png")
    place = str(home / "artifacts")

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{place}/secret")

    monkeypatch.setattr(local._blobs, "read", refused)
    with pytest.raises(errors.StoreUnavailable) as caught:
        await read(local, artifact.sha256)
    assert caught.value.message == "the artifact store cannot be used"
    (record,) = caplog.records
    assert place in record.getMessage()
    assert "Permission denied" in record.getMessage()


async def test_a_place_that_cannot_be_a_folder(home: Path):
    (home / "artifacts").touch()
    with pytest.raises(errors.StoreUnavailable) as caught:
        await ArtifactStore.open("artifacts", home)
    assert str(home / "artifacts") in caught.value.message


def test_the_store_comes_without_sql():
    code = "import sys, storage.artifacts; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
