"""Media intake: what becomes an artifact, what is refused, and that refused bytes are not kept."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferq import errors
from inferq.config.sections import Media as MediaSettings
from inferq.media.facts import Facts
from inferq.media.prober import Prober
from storage import media
from storage.artifacts import COPIES_FOLDER, ArtifactStore
from storage.media import Limits, MediaStore, judge
from tests.media import files
from tests.media.servers import answering, raw, response

PNG, WAV, MP4 = files.picture("PNG"), files.wav(), files.video("mp4", "mpeg4")


@pytest.fixture(params=["local", "memory"])
async def artifacts(request: pytest.FixtureRequest, home: Path) -> ArtifactStore:
    return await ArtifactStore.open("artifacts" if request.param == "local" else f"memory://{home}", home)


@pytest.fixture
async def store(artifacts: ArtifactStore) -> AsyncIterator[MediaStore]:
    made = media_store(artifacts, allow_http=True, allow_hosts=["127.0.0.1"])
    yield made
    await made.close()


def media_store(artifacts: ArtifactStore, **settings: Any) -> MediaStore:
    return MediaStore(artifacts, MediaSettings.model_validate(settings))


def names(artifacts: ArtifactStore, home: Path) -> set[str]:
    """All files in the store, and all local ones that belong to it."""
    blobs = artifacts._blobs
    copies = home / COPIES_FOLDER
    found = {Path(path).name for path in blobs.fs.find(blobs.root)}
    return found | ({path.name for path in copies.iterdir()} if copies.exists() else set())


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(artifacts: ArtifactStore, sha256: str) -> bytes:
    return b"".join([chunk async for chunk in artifacts.open_read(sha256)])


async def test_every_way_in_gives_the_same_artifact(store: MediaStore, artifacts: ArtifactStore):
    async with answering(raw(response(PNG, "Content-Type: text/plain"))) as server:
        ways = [
            await store.take(data_url(PNG, "image/gif"), param="image", wants="image"),
            await store.take(server.url("/x.exe"), param="image", wants="image"),
            await store.take(base64.b64encode(PNG).decode(), param="image", wants="image", raw_base64=True),
            await store.receive(
                pieces(PNG[:9], PNG[9:]), param="image", media_type="audio/wav", wants="image"
            ),
            await store.take(digest(PNG), param="image", wants="image"),
            await store.take(f"artifact:{digest(PNG)}", param="image", wants="image"),
            await store.take(
                f"https://x.example/v1/artifacts/{digest(PNG)}?a=b",
                param="image",
                wants="image",
                host="X.example:443",
            ),
        ]
    (found,) = set(ways)
    assert (found.sha256, found.media_type, found.size) == (digest(PNG), "image/png", len(PNG))
    assert (found.facts.width, found.facts.height) == (40, 30)
    assert await read(artifacts, found.sha256) == PNG
    known = await artifacts.stat(found.sha256)
    assert known is not None
    assert known.media_type == "image/png"


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        (PNG, {"image", "any"}),
        (WAV, {"audio", "any"}),
        (MP4, {"video", "any"}),
        (b"hello", {"any"}),
        (b"\x00\x01\x02", {"any"}),
    ],
    ids=["picture", "sound", "silent video", "text", "bytes"],
)
@pytest.mark.parametrize("wants", ["image", "audio", "video", "any"])
async def test_kinds(
    store: MediaStore, artifacts: ArtifactStore, home: Path, data: bytes, fits: set[str], wants: Any
):
    if wants in fits:
        assert (await store.take(data_url(data), param="input", wants=wants)).sha256 == digest(data)
        return
    with pytest.raises(errors.InvalidRequest, match="Invalid 'input': expected a") as caught:
        await store.take(data_url(data), param="input", wants=wants)
    assert caught.value.param == "input"
    assert names(artifacts, home) == set()


async def test_a_picture_that_no_engine_reads_is_refused_with_those_that_are(store: MediaStore):
    said = r"expected a picture \(PNG, JPEG, WEBP, GIF, BMP\), but the file is image/tiff"
    with pytest.raises(errors.InvalidRequest, match=said):
        await store.take(data_url(files.picture("TIFF")), param="image", wants="image")


def test_a_video_with_sound_can_be_listened_to():
    limits = Limits(pixels=100, seconds=10, frames=100)
    facts = Facts(kind="video", width=10, height=10, frames=10, seconds=1, channels=2)
    judge(facts, param="file", wants="audio", limits=limits)
    judge(facts, param="file", wants="video", limits=limits)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"kind": "image", "width": 11, "height": 10}, "11x10 pixels, more than the limit of 100 pixels"),
        (
            {"kind": "image", "width": 10, "height": 10, "frames": 101},
            "101 frames, more than the limit of 100",
        ),
        ({"kind": "video", "width": 101, "height": 1, "seconds": 1.0}, "101x1 pixels"),
        ({"kind": "audio", "channels": 1, "seconds": 10.1}, "10.1 s, more than the limit of 10 s"),
        ({"kind": "audio", "channels": 1}, "length of the file in 'x' cannot be told"),
        ({"kind": "audio", "channels": 1, "seconds": float("nan")}, "cannot be told"),
        ({"error": "it is damaged"}, "cannot be used: it is damaged"),
    ],
)
def test_limits(facts: dict[str, Any], said: str):
    with pytest.raises(errors.InvalidRequest, match=said) as caught:
        judge(Facts(**facts), param="x", wants="any", limits=Limits(pixels=100, seconds=10, frames=100))
    assert caught.value.param == "x"


@pytest.mark.parametrize(
    "facts",
    [
        {"kind": "image", "width": 10, "height": 10, "frames": 100},
        {"kind": "audio", "channels": 1, "seconds": 10.0},
        {"kind": "other"},
    ],
)
def test_limits_include_themselves(facts: dict[str, Any]):
    judge(Facts(**facts), param="x", wants="any", limits=Limits(pixels=100, seconds=10, frames=100))


@pytest.mark.parametrize(
    ("settings", "data", "said"),
    [
        ({}, files.png_header(60_000, 60_000), "60000x60000 pixels"),
        ({"max_image_pixels": 1199}, PNG, "40x30 pixels, more than the limit of 1199"),
        ({"max_audio_seconds": "900ms"}, WAV, "1.0 s, more than the limit of 0.9 s"),
        ({"max_frames": 9}, MP4, "10 frames, more than the limit of 9"),
        ({}, PNG[:20], "cannot be used: it is damaged"),
        ({}, b"", "is empty"),
    ],
    ids=["bomb", "pixels", "seconds", "frames", "broken", "empty"],
)
async def test_what_is_refused_is_not_kept(
    artifacts: ArtifactStore, home: Path, settings: dict[str, Any], data: bytes, said: str
):
    store = media_store(artifacts, **settings)
    try:
        for way in (
            store.take(data_url(data), param="input"),
            store.receive(pieces(data), param="input"),
        ):
            with pytest.raises(errors.InvalidRequest, match=said):
                await way
            assert names(artifacts, home) == set()
    finally:
        await store.close()


async def test_bytes_that_are_here_already_survive_a_refusal(store: MediaStore, artifacts: ArtifactStore):
    await store.take(data_url(PNG), param="image")
    with pytest.raises(errors.InvalidRequest):
        await store.take(data_url(PNG), param="file", wants="audio")
    assert await read(artifacts, digest(PNG)) == PNG


async def test_the_configured_limits_hold(artifacts: ArtifactStore, store: MediaStore):
    narrow = media_store(artifacts, max_image_pixels=100, max_audio_seconds=0.5)
    for data in (PNG, WAV):
        with pytest.raises(errors.InvalidRequest, match="more than the limit"):
            await narrow.take(data_url(data), param="x")
        await store.take(data_url(data), param="x")
    await narrow.close()


async def test_an_upload_over_the_limit_leaves_nothing(artifacts: ArtifactStore, home: Path):
    store = media_store(artifacts, max_upload=1000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 400
            yield b"x" * 400

    with pytest.raises(errors.BodyTooLarge, match="larger than 1000 bytes") as caught:
        await store.receive(endless(), param="file")
    assert caught.value.param == "file"
    assert sent == 1200
    assert (await store.receive(pieces(b"x" * 1000), param="file")).size == 1000
    assert len(names(artifacts, home)) == 2
    with pytest.raises(errors.InvalidRequest, match="larger than 1000 bytes"):
        await store.take(data_url(b"x" * 1001), param="file")
    await store.close()


async def test_an_upload_that_breaks_off_leaves_nothing(
    store: MediaStore, artifacts: ArtifactStore, home: Path
):
    async def broken() -> AsyncIterator[bytes]:
        yield PNG
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.receive(broken(), param="file")
    assert names(artifacts, home) == set()

    begun = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield PNG
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.receive(waiting(), param="file"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(artifacts, home) == set()


async def test_a_url_that_is_refused_leaves_nothing(store: MediaStore, artifacts: ArtifactStore, home: Path):
    async with answering(raw(response(PNG, length=len(PNG) + 1))) as server:
        with pytest.raises(errors.InvalidRequest, match="ended early"):
            await store.take(server.url(), param="image")
    with pytest.raises(errors.InvalidRequest, match="public address"):
        await store.take("https://10.0.0.1/", param="image")
    assert names(artifacts, home) == set()


async def test_an_artifact_that_is_not_there_is_named(store: MediaStore):
    with pytest.raises(errors.InvalidRequest, match=f"There is no artifact {'0' * 64}") as caught:
        await store.take("0" * 64, param="image")
    assert caught.value.param == "image"


async def test_artifacts_are_judged_too(store: MediaStore, artifacts: ArtifactStore):
    """What a job made, or another endpoint took, need not be what this one wants."""
    text = await artifacts.put(b"hello", "image/png")
    with pytest.raises(errors.InvalidRequest, match="but the file is text/plain"):
        await store.take(text.sha256, param="image", wants="image")
    found = await store.take(text.sha256, param="file")
    assert (found.media_type, found.facts.kind) == ("text/plain", "other")


@pytest.mark.parametrize(
    ("data", "claimed", "kept"),
    [
        (PNG, "text/html", "image/png"),
        (b"<script>", "text/html", "text/plain"),
        (b"\x00\x01", "image/png", "application/octet-stream"),
        (b"\x00\x01", "text/html", "application/octet-stream"),
        (b"\x00\x01", "Application/X-Model", "application/x-model"),
        (b"\x00\x01", "application/x\r\nSet-Cookie: a", "application/octet-stream"),
        (b"\x00\x01", None, "application/octet-stream"),
    ],
)
async def test_the_media_type_is_what_the_bytes_are(
    store: MediaStore, data: bytes, claimed: str | None, kept: str
):
    assert (await store.receive(pieces(data), param="file", media_type=claimed)).media_type == kept


async def test_the_same_bytes_are_looked_into_once(
    store: MediaStore, artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch
):
    looked: list[Path] = []
    probe = Prober.probe

    async def counted(prober: Prober, path: Path, tenant: str) -> Facts:
        looked.append(path)
        return await probe(prober, path, tenant)

    monkeypatch.setattr(Prober, "probe", counted)
    monkeypatch.setattr(media, "REMEMBERED", 2)
    for _ in range(3):
        await store.take(data_url(PNG), param="image")
        await store.take(digest(PNG), param="image")
    assert len(looked) == 1
    await store.take(data_url(WAV), param="file")
    await store.take(data_url(PNG), param="image")
    await store.take(data_url(b"hello"), param="file")
    assert len(looked) == 3
    await store.take(digest(PNG), param="image")
    assert len(looked) == 3
    await store.take(digest(WAV), param="file")
    assert len(looked) == 4
    assert len(store._known) == 2


async def test_a_failed_look_is_not_remembered(store: MediaStore, monkeypatch: pytest.MonkeyPatch):
    async def fails(_prober: Prober, _path: Path, _tenant: str) -> Facts:
        return Facts(error="it is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(Prober, "probe", fails)
        with pytest.raises(errors.InvalidRequest, match="it is damaged"):
            await store.take(data_url(PNG), param="image")
    await store.take(data_url(PNG), param="image", wants="image")


async def test_a_file_that_took_too_long_is_refused_unseen_for_a_while(
    store: MediaStore, monkeypatch: pytest.MonkeyPatch
):
    looks = 0

    async def slow(_prober: Prober, _path: Path, _tenant: str) -> Facts:
        nonlocal looks
        looks += 1
        return Facts(error="looking into it took longer than 5 s", slow=True)

    with monkeypatch.context() as patch:
        patch.setattr(Prober, "probe", slow)
        for tenant in "aab":
            with pytest.raises(errors.InvalidRequest, match="longer than 5 s"):
                await store.take(data_url(PNG), param="image", tenant=tenant)
        assert looks == 1
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now + media.SLOW_SECONDS + 60)
    assert (await store.take(data_url(PNG), param="image")).facts.error is None


async def test_many_at_once(store: MediaStore):
    pictures = [files.picture("PNG", (10 + number, 10)) for number in range(20)]
    found = await asyncio.gather(*(store.take(data_url(data), param="image") for data in pictures * 2))
    assert [media.facts.width for media in found] == [10 + number for number in range(20)] * 2


async def test_large_inline_data_is_decoded_beside_the_loop(
    store: MediaStore, monkeypatch: pytest.MonkeyPatch
):
    ran: list[Any] = []
    to_thread = asyncio.to_thread

    async def recorded(function: Any, *arguments: Any, **more: Any) -> Any:
        ran.append(function)
        return await to_thread(function, *arguments, **more)

    monkeypatch.setattr(asyncio, "to_thread", recorded)
    await store.take(data_url(b"x" * 2_000_000), param="file")
    assert media.parse in ran
