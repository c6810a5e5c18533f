"""Looking into files: facts about honest ones, and what hostile ones cost."""

import asyncio
import contextlib
import io
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import GifImagePlugin

from inferq import errors
from inferq.media import probe
from inferq.media import prober as prober_module
from inferq.media.facts import PICTURES, Facts
from inferq.media.prober import Prober
from tests.media import files


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    made = Prober()
    yield made
    await made.close()


@pytest.fixture
def look(prober: Prober, tmp_path: Path) -> Callable[[bytes], Any]:
    async def look(data: bytes) -> Facts:
        path = tmp_path / "file"
        path.write_bytes(data)
        return await prober.probe(path)

    return look


def pids(prober: Prober) -> list[int]:
    return [child.process.pid for child in prober._idle]


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    return False


async def until(question: Callable[[], Any]) -> Any:
    async with asyncio.timeout(20):
        while not (answer := question()):
            await asyncio.sleep(0.01)
        return answer


@pytest.mark.parametrize(
    ("form", "frames"),
    [(form, 1) for form in PICTURES] + [(form, 3) for form in ("PNG", "WEBP", "GIF")],
)
async def test_pictures(look, form: str, frames: int):
    assert await look(files.picture(form, (40, 30), frames)) == Facts(
        kind="image",
        media_type=f"image/{form.lower()}",
        width=40,
        height=30,
        frames=frames,
    )


@pytest.mark.parametrize(("frames", "error"), [(10_000, None), (10_001, "it has more than 10000 frames")])
async def test_a_gif_has_a_bound_of_frames(look, frames: int, error: str | None):
    found = await look(files.gif(frames))
    assert (found.error, found.frames) == (error, None if error else frames)


async def test_no_more_frames_are_looked_at_than_the_bound(monkeypatch: pytest.MonkeyPatch):
    looked = 0
    seek = GifImagePlugin.GifImageFile._seek

    def counted(image: Any, frame: int, update_image: bool = True) -> None:
        nonlocal looked
        looked += 1
        seek(image, frame, update_image)

    monkeypatch.setattr(GifImagePlugin.GifImageFile, "_seek", counted)
    data = files.gif(30_000)
    assert "frames" in probe.picture(io.BytesIO(data), data[:4096])["error"]
    assert looked <= probe.MOST_FRAMES + 1


def test_the_child_takes_the_pictures_that_engines_read():
    assert probe._PICTURES == PICTURES


async def test_a_jpeg_with_more_pictures_is_a_jpeg(look):
    found = await look(files.picture("MPO", frames=2))
    assert (found.media_type, found.frames) == ("image/jpeg", 1)


@pytest.mark.parametrize(
    ("form", "codec", "rate", "media_type"),
    [
        ("mp3", "libmp3lame", 16_000, "audio/mpeg"),
        ("mp4", "aac", 16_000, "audio/mp4"),
        ("ipod", "aac", 16_000, "audio/mp4"),
        ("adts", "aac", 16_000, "audio/aac"),
        ("ogg", "libopus", 48_000, "audio/ogg"),
        ("webm", "libopus", 48_000, "audio/webm"),
        ("matroska", "flac", 16_000, "audio/x-matroska"),
        ("flac", "flac", 16_000, "audio/flac"),
        ("aiff", "pcm_s16be", 16_000, "audio/aiff"),
        ("au", "pcm_s16be", 16_000, "audio/basic"),
    ],
)
async def test_sounds(look, form: str, codec: str, rate: int, media_type: str):
    found = await look(files.sound(form, codec, 2.0, rate))
    assert (found.kind, found.media_type, found.error) == ("audio", media_type, None)
    assert found.channels == 1
    assert found.seconds == pytest.approx(2.0, abs=0.15)
    assert (found.width, found.frames) == (None, None)


async def test_wav(look):
    assert await look(files.wav(1.5, 8000, 2)) == Facts(
        kind="audio", media_type="audio/wav", seconds=1.5, channels=2
    )


@pytest.mark.parametrize("claimed", [0, 0x7FFFFFFF, 0xFFFFFFFF])
async def test_a_wav_is_as_long_as_its_bytes_not_as_its_header(look, claimed: int):
    """Programs that write to a pipe leave 0 or the largest number there."""
    assert (await look(files.wav_claiming(claimed, 1.0))).seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("form", "codec", "media_type"),
    [
        ("mp4", "mpeg4", "video/mp4"),
        ("mov", "mpeg4", "video/quicktime"),
        ("webm", "libvpx", "video/webm"),
        ("matroska", "mpeg4", "video/x-matroska"),
        ("avi", "mpeg4", "video/x-msvideo"),
        ("mpegts", "mpeg2video", "video/mp2t"),
    ],
)
async def test_videos(look, form: str, codec: str, media_type: str):
    found = await look(files.video(form, codec, 20))
    assert (found.kind, found.media_type, found.error) == ("video", media_type, None)
    assert (found.width, found.height, found.frames) == (64, 48, 20)
    assert found.seconds == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("live", ["sound", "video"])
async def test_a_length_that_no_header_tells_is_measured(look, live: str):
    options = {"container_options": {"live": "1"}}
    made = {
        "sound": lambda: files.sound("webm", "libopus", 2.0, 48_000, **options),
        "video": lambda: files.video("matroska", "mpeg4", 20, **options),
    }
    assert (await look(made[live]())).seconds == pytest.approx(2.0, abs=0.05)


async def test_a_song_with_a_cover_is_a_sound(look, tmp_path: Path):
    tagged = b"\x00image/png\x00\x03\x00" + files.picture("PNG")
    frame = b"APIC" + len(tagged).to_bytes(4, "big") + b"\x00\x00" + tagged
    size = len(frame)
    head = b"ID3\x03\x00\x00" + bytes([(size >> shift) & 0x7F for shift in (21, 14, 7, 0)]) + frame
    assert (await look(head + files.sound("mp3", "libmp3lame"))).kind == "audio"


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"", None),
        (b"hello w\xc3\xb6rld\n", "text/plain"),
        (b"x" * 4095 + "ö".encode(), "text/plain"),
        (b"\x00\x01\x02" * 1000, None),
        (b"\xff\xfe" * 1000, None),
        (b"PK\x03\x04" + b"x" * 1000, "application/zip"),
        (b"%PDF-1.7\n", "application/pdf"),
        (files.picture("TIFF"), "image/tiff"),
        (files.picture("TIFF", frames=3), "image/tiff"),
        (files.picture("TIFF", big_tiff=True), "image/tiff"),
        (b"MM\x00*" + b"\x00" * 100, "image/tiff"),
        (b"\x00\x00\x00\x20ftypavif" + b"\x00" * 100, "image/avif"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "text/plain"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "text/plain"),
        (b"P6 2 2 255\n" + b"\x00" * 12, None),
    ],
)
async def test_what_is_neither_picture_nor_recording(look, data: bytes, media_type: str | None):
    assert await look(data) == Facts(kind="other", media_type=media_type)


@pytest.mark.parametrize("form", ["m3u8", "concat", "sdp", "dash", "ffmeta"])
async def test_a_playlist_opens_nothing(look, tmp_path: Path, form: str):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(files.wav())
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.3)
        url = f"http://127.0.0.1:{inside.getsockname()[1]}/x"
        found = await look(
            {
                "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
                "concat": f"ffconcat version 1.0\nfile {secret}\nfile {url}\n",
                "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
                "dash": f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
                "ffmeta": ";FFMETADATA1\ntitle=x\n",
            }[form].encode()
        )
        assert found == Facts(kind="other", media_type="text/plain")
        with pytest.raises(TimeoutError):
            inside.accept()


async def test_a_bomb_is_measured_not_decoded(look, prober: Prober):
    found = await look(files.png_header(60_000, 60_000))
    assert (found.width, found.height, found.error) == (60_000, 60_000, None)
    status = Path(f"/proc/{pids(prober)[0]}/status").read_text()
    assert int(status.split("VmHWM:")[1].split()[0]) < 200_000


async def test_a_picture_that_wants_too_much_memory_costs_only_itself(look, prober: Prober):
    assert (await look(files.webp_header(1 << 24, 1 << 24))).error
    assert (await look(files.picture("WEBP"))).width == 40


@pytest.mark.parametrize(
    "data",
    [
        files.picture("PNG")[:20],
        files.picture("JPEG")[:200],
        files.picture("GIF")[:9],
        files.picture("WEBP")[:40],
        b"\x89PNG\r\n\x1a\n" + b"\xff" * 1000,
    ],
    ids=["png", "jpeg", "gif", "webp", "noise"],
)
async def test_a_broken_picture_is_said_to_be_broken(look, data: bytes):
    assert await look(data) == Facts(error="it is damaged")


@pytest.mark.parametrize("cut", [8, 20, 44, 100, 400])
@pytest.mark.parametrize("form", ["wav", "mp3", "mp4", "webm", "ogg", "flac"])
async def test_cut_recordings_do_no_harm(look, prober: Prober, form: str, cut: int):
    made = {
        "wav": files.wav,
        "mp3": lambda: files.sound("mp3", "libmp3lame"),
        "mp4": lambda: files.video("mp4", "mpeg4"),
        "webm": lambda: files.video("webm", "libvpx"),
        "ogg": lambda: files.sound("ogg", "libopus", rate=48_000),
        "flac": lambda: files.sound("flac", "flac"),
    }
    await look(made[form]()[:cut])
    assert (await look(files.wav())).seconds == 1.0
    assert len(pids(prober)) == 1


async def test_a_file_that_is_gone(prober: Prober, tmp_path: Path):
    assert (await prober.probe(tmp_path / "missing")).error == "it is damaged"


async def test_names_may_hold_anything(prober: Prober, tmp_path: Path):
    path = tmp_path / 'a\n"b\\c \udcff'
    path.write_bytes(files.wav())
    assert (await prober.probe(path)).kind == "audio"


async def test_children_are_started_when_needed_and_kept(prober: Prober, tmp_path: Path):
    assert pids(prober) == []
    path = tmp_path / "file"
    path.write_bytes(files.wav())
    for _ in range(3):
        await prober.probe(path)
    (first,) = pids(prober)
    found = await asyncio.gather(*(prober.probe(path) for _ in range(50)))
    assert {facts.seconds for facts in found} == {1.0}
    assert first in pids(prober)
    assert len(pids(prober)) == 2


async def stuck(prober: Prober, tmp_path: Path) -> tuple["asyncio.Task[Facts]", int]:
    """A probe of a file that never ends, and the child that hangs on it."""
    await prober.probe(tmp_path)
    (pid,) = pids(prober)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    task = asyncio.create_task(prober.probe(pipe))
    await until(lambda: not prober._idle)
    return task, pid


async def test_a_tenant_with_many_files_keeps_nobody_else_waiting(tmp_path: Path):
    prober, answered = Prober(children=1), []
    try:
        first, _ = await stuck(prober, tmp_path)

        async def probe(name: str) -> None:
            await prober.probe(tmp_path, name[0])
            answered.append(name)

        waiting = [asyncio.create_task(probe(name)) for name in ("a1", "a2", "a3", "b1")]
        await until(lambda: sum(map(len, prober._turns._waiting.values())) == 4)
        (tmp_path / "pipe").write_bytes(files.picture("PNG"))
        await asyncio.gather(first, *waiting)
        assert answered == ["a1", "b1", "a2", "a3"]
    finally:
        await prober.close()


async def test_a_child_killed_at_work_costs_one_file(prober: Prober, tmp_path: Path, look):
    task, pid = await stuck(prober, tmp_path)
    os.kill(pid, signal.SIGKILL)
    assert await task == Facts(error="it is damaged")
    assert (await look(files.wav())).seconds == 1.0
    assert pid not in pids(prober)


async def test_a_child_killed_while_idle_costs_nothing(prober: Prober, look):
    await look(files.wav())
    child = prober._idle[0].process
    child.kill()
    await child.wait()
    assert (await look(files.wav())).seconds == 1.0


async def test_a_child_killed_while_idle_leaves_no_zombie(prober: Prober, look):
    await look(files.wav())
    (pid,) = pids(prober)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not Path(f"/proc/{pid}").exists())
    assert (await look(files.wav())).seconds == 1.0


async def test_a_file_that_takes_too_long(tmp_path: Path):
    prober = Prober(seconds=0.3)
    try:
        task, pid = await stuck(prober, tmp_path)
        found = await task
        assert found == Facts(error="looking into it took longer than 0.3 s", slow=True)
        assert not is_alive(pid)
    finally:
        await prober.close()


async def test_a_caller_who_leaves_leaves_no_mess(prober: Prober, tmp_path: Path, look):
    task, pid = await stuck(prober, tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await look(files.wav())).seconds == 1.0
    (tmp_path / "pipe").write_bytes(files.picture("PNG"))
    # The abandoned answer was read and thrown away, so the next one is the right one.
    await until(lambda: pid in pids(prober))
    for _ in range(4):
        assert (await look(files.wav())).seconds == 1.0


async def test_close_ends_everything(tmp_path: Path):
    prober = Prober()
    task, pid = await stuck(prober, tmp_path)
    await prober.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pid)


async def test_a_child_is_replaced_after_many_files(prober: Prober, look, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prober_module, "FILES_PER_CHILD", 2)
    await look(files.wav())
    (first,) = pids(prober)
    await look(files.wav())
    assert pids(prober) == []
    assert not is_alive(first)


async def test_a_prober_that_cannot_start_is_not_the_files_fault(
    prober: Prober, look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    broken = tmp_path / "probe.py"
    broken.write_text("import nothing_of_that_name")
    monkeypatch.setattr(prober_module, "_PROGRAM", broken)
    with pytest.raises(errors.Unavailable):
        await look(files.wav())


async def test_a_child_that_talks_nonsense_is_replaced(
    prober: Prober, look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    babbling = tmp_path / "probe.py"
    with monkeypatch.context() as patch:
        patch.setattr(prober_module, "_PROGRAM", babbling)
        for line in ("[1]", '{"kind": 1, "more": 2}', "{", "null", "x" * 200_000):
            babbling.write_text(f"print('ready', flush=True)\ninput()\nprint({line!r}, flush=True)\ninput()")
            assert await look(files.wav()) == Facts(error="it is damaged")
    assert (await look(files.wav())).seconds == 1.0


async def test_a_child_has_limits_and_nothing_of_ours(
    prober: Prober, look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("INFERQ_API_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "open").open("w"):
        os.set_inheritable(listening.fileno(), True)
        await look(files.wav())
    proc = Path(f"/proc/{pids(prober)[0]}")
    assert {int(name.name) for name in (proc / "fd").iterdir()} == {0, 1, 2}
    assert b"INFERQ" not in (proc / "environ").read_bytes()
    limits = {line[:26].strip(): line[26:].split()[:2] for line in (proc / "limits").read_text().splitlines()}
    assert limits["Max address space"] == ["1073741824"] * 2
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max core file size"] == ["0", "0"]
    assert int(limits["Max cpu time"][0]) <= 15
    assert (proc / "cwd").readlink() == Path("/")


async def test_the_time_limit_is_renewed_for_each_file(prober: Prober, look):
    await look(files.wav())
    pid = pids(prober)[0]
    resource.prlimit(pid, resource.RLIMIT_CPU, (1, resource.RLIM_INFINITY))
    await look(files.wav())
    assert "Max cpu time              1 " not in Path(f"/proc/{pid}/limits").read_text()


def test_a_child_does_not_outlive_its_owner(tmp_path: Path):
    code = (
        "import asyncio, sys; from pathlib import Path; from inferq.media.prober import Prober\n"
        "async def main():\n"
        "    prober = Prober(); await prober.probe(Path('/'))\n"
        "    print(prober._idle[0].process.pid, flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        pid = int(owner.stdout.readline())
        assert is_alive(pid)
        owner.kill()
    until = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_alive(pid)
