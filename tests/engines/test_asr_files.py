"""What comes in as a file: every format, silence, and everything that is no sound or too much of it."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.process import EngineProcess, running
from tests.engines.voices import Voices

pytestmark = pytest.mark.timeout(400)
PATH = "/v1/audio/transcriptions"
FORMATS = {
    "tea.mp3": ("mp3", 44_100, "stereo"),
    "tea.aac": ("aac", 44_100, "stereo"),
    "tea.m4a": ("aac", 48_000, "mono"),
    "tea.flac": ("flac", 22_050, "stereo"),
    "tea.ogg": ("libopus", 48_000, "stereo"),
    "tea.opus": ("libopus", 48_000, "mono"),
    "tea.webm": ("libopus", 48_000, "stereo"),
    "tea8.wav": ("pcm_s16le", 48_000, "stereo"),
    "tea24.wav": ("pcm_s24le", 16_000, "mono"),
}


@pytest.fixture(scope="module")
def tea(voices: Voices) -> str:
    return voices.say("tea.wav", "tea")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_text(asr: EngineProcess, voices: Voices, tea: str, name: str) -> None:
    url = voices.encode("tea.wav", name, *FORMATS[name])
    response = asr.post(PATH, {"file": url})
    assert response.status_code == 200, response.text
    assert response.json()["text"] == voices.phrases["tea"]["written"]


def test_the_name_of_a_file_does_not_matter(asr: EngineProcess, voices: Voices, tea: str) -> None:
    voices.encode("tea.wav", "tea.mp3", *FORMATS["tea.mp3"])
    url = voices.write("wrong.wav", (voices.folder / "tea.mp3").read_bytes())
    assert asr.post(PATH, {"file": url}).json()["text"] == voices.phrases["tea"]["written"]


@pytest.mark.parametrize("form", ["json", "verbose_json", "text", "srt", "vtt"])
@pytest.mark.parametrize("seconds", [0.0, 0.01, 3.0, 70.0])
def test_silence_is_an_empty_text(asr: EngineProcess, voices: Voices, seconds: float, form: str) -> None:
    url = voices.wav("silent.wav", bytes(int(seconds * 16_000) * 2))
    response = asr.post(PATH, {"file": url, "response_format": form})
    assert response.status_code == 200, response.text
    if form.endswith("json"):
        assert response.json()["text"] == ""
    else:
        assert response.text.strip() in ("", "WEBVTT")


def test_an_empty_stream_is_only_the_end(asr: EngineProcess, voices: Voices) -> None:
    response = asr.post(PATH, {"file": voices.wav("none.wav", b""), "stream": True})
    assert response.text.count("event: ") == 1
    assert response.text.endswith("data: [DONE]\n\n")


def header(size: int, rate: int = 16_000, channels: int = 1, bits: int = 16) -> bytes:
    frame = channels * bits // 8
    form = struct.pack("<IHHIIHH", 16, 1, channels, rate, (rate * frame) & 0xFFFFFFFF, frame & 0xFFFF, bits)
    return (
        b"RIFF"
        + struct.pack("<I", min(size + 36, 0xFFFFFFFF))
        + b"WAVEfmt "
        + form
        + b"data"
        + struct.pack("<I", size)
    )


def test_a_wav_that_was_written_to_a_pipe_has_no_true_size(
    asr: EngineProcess, voices: Voices, tea: str
) -> None:
    for unknown in (0xFFFFFFFF, 0):
        url = voices.write("pipe.wav", header(unknown) + voices.samples("tea.wav"))
        assert asr.post(PATH, {"file": url}).json()["text"] == voices.phrases["tea"]["written"]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


HOSTILE: dict[str, Callable[[Voices], bytes]] = {
    "empty": lambda voices: b"",
    "text": lambda voices: b"this is a letter, not a sound. " * 100,
    "picture": lambda voices: b"\x89PNG\r\n\x1a\n" + bytes(5000),
    "script": lambda voices: (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    ),
    "concat": lambda voices: b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a list of another sound": lambda voices: b"ffconcat version 1.0\nfile tea.wav\n",
    "zeros": lambda voices: bytes(100_000),
    "only a header": lambda voices: header(1 << 20),
    "cut wav": lambda voices: half((voices.folder / "tea.wav").read_bytes()),
    "cut flac": lambda voices: half((voices.folder / "tea.flac").read_bytes()),
    "cut m4a": lambda voices: half((voices.folder / "tea.m4a").read_bytes()),
    "claims days": lambda voices: header(0xFFFF0000, rate=2000) + bytes(4000),
    "a million a second": lambda voices: header(32_000, rate=1_000_000) + bytes(32_000),
    "four a second": lambda voices: header(32_000, rate=4) + bytes(32_000),
    "none a second": lambda voices: header(32_000, rate=0) + bytes(32_000),
    "600 channels": lambda voices: header(120_000, channels=600) + bytes(120_000),
    "noise in an ogg": lambda voices: b"OggS" + bytes(range(256)) * 100,
    "noise in an mp4": lambda voices: bytes(3) + b"\x20ftypisom" + bytes(range(256)) * 100,
    "a huge box": lambda voices: (
        bytes(3) + b"\x18ftypmp42" + bytes(12) + b"\xff\xff\xff\xf0moov" + bytes(4000)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_sound_is_refused(asr: EngineProcess, voices: Voices, tea: str, name: str) -> None:
    for each in ("tea.flac", "tea.m4a"):
        voices.encode("tea.wav", each, *FORMATS[each])
    url = voices.write("hostile.bin", HOSTILE[name](voices))
    response = asr.post(PATH, {"file": url})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("file", "invalid_audio")
    assert asr.post(PATH, {"file": voices.url("hello.wav")}).json()["text"] == "Hello world."


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "file:///../../etc/passwd", "https://example.com/a.wav", 7, None]
)
def test_other_places_are_refused(asr: EngineProcess, url: object) -> None:
    response = asr.post(PATH, {"file": url})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file")


@pytest.fixture(scope="module")
def strict(socket_dir: Path, voices: Voices, asr_model: Path) -> EngineProcess:
    """An engine with small limits, and without a detector."""
    options = {"max_seconds": 10.0, "decode_timeout_s": 0.001, "threads": 1}
    with running("asr", socket_dir, str(asr_model), options=options, media=voices.folder) as engine:
        yield engine


def test_a_longer_file_is_refused_with_the_limit(strict: EngineProcess, voices: Voices) -> None:
    voices.wav("long.wav", voices.samples("hello.wav") * 20)
    response = strict.post(PATH, {"file": voices.url("long.wav")})
    assert response.status_code == 400
    assert "the limit is 10" in response.json()["error"]["message"]


def test_a_decoder_that_takes_too_long_is_replaced(strict: EngineProcess, voices: Voices, tea: str) -> None:
    url = voices.encode("tea.wav", "tea.mp3", *FORMATS["tea.mp3"])
    for _ in range(3):
        response = strict.post(PATH, {"file": url})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_audio")
    assert strict.post(PATH, {"file": voices.url("hello.wav")}).json()["text"] == "Hello world."


def test_without_a_detector_sound_is_cut_where_it_is_quiet(strict: EngineProcess, voices: Voices) -> None:
    response = strict.post(
        PATH, {"file": voices.say("two.wav", "hello", "cat", gap=1.0), "response_format": "srt"}
    )
    assert "Hello world." in response.text
    assert "The cat sleeps on the sofa." in response.text
