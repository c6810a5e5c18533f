"""The speech engine in front of another server: what it asks there, and what it makes of the answers."""

import io
import json
import math
import os
import signal
import threading
import time
import wave
from array import array
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.engines.heard import PATH, decode, pcm, refused, said, spoken_events
from tests.engines.process import EngineProcess, eventually, running, spawn

SENTENCE_S = 0.5
TEN = "One more sentence is here. " * 10


def tone(seconds: float, hertz: float = 440, rate: int = 16_000) -> bytes:
    """A mono wav file."""
    samples = array(
        "h", (int(9000 * math.sin(2 * math.pi * hertz * n / rate)) for n in range(int(seconds * rate)))
    )
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return target.getvalue()


@dataclass
class Upstream:
    """A speech server that says half a second of a tone for every text."""

    url: str = ""
    delay_s: float = 0.0
    status: int = 200
    answer: bytes = b""
    break_after: int = 10_000
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    left: int = 0

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        self.asked.append(json.loads(body) | {"path": handler.path})
        self.headers.append(dict(handler.headers))
        status = 500 if len(self.asked) > self.break_after else self.status
        time.sleep(self.delay_s)
        content = self.answer or tone(SENTENCE_S)
        try:
            handler.send_response(status)
            handler.send_header("content-length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.left += 1


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    state = Upstream()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.respond(self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def media(short_dir: Path) -> Path:
    folder = short_dir / "media"
    folder.mkdir()
    (folder / "me.wav").write_bytes(tone(2))
    (folder / "short.wav").write_bytes(tone(0.1))
    (folder / "long.wav").write_bytes(tone(31))
    (folder / "noise.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVE" + b"not a sound " * 50)
    (folder / "empty.wav").write_bytes(b"")
    # A list of files is no recording: it could name what another caller sent.
    (folder / "list.wav").write_text("ffconcat version 1.0\nfile me.wav\n")
    (folder / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nme.wav\n#EXT-X-ENDLIST\n"
    )
    (short_dir / "outside.wav").write_bytes(tone(2))
    return folder


@pytest.fixture
def engine(short_dir: Path, upstream: Upstream, media: Path) -> Iterator[EngineProcess]:
    options = {
        "upstream": upstream.url,
        "upstream_model": "their-name",
        "upstream_extra": {"task_type": "Base"},
    }
    with running("speech", short_dir, "none", options=options, media=media, slots=2) as process:
        yield process


def test_every_sentence_is_asked_for(engine: EngineProcess, upstream: Upstream) -> None:
    heard = decode(said(engine, "One here. Two there.", response_format="wav", voice="anna", speed=2))
    assert heard.seconds == pytest.approx(2 * SENTENCE_S + 0.06, abs=0.03)
    assert heard.rate == 24_000
    assert heard.loudness > 3000
    common = {
        "model": "their-name",
        "response_format": "wav",
        "voice": "anna",
        "speed": 2.0,
        "task_type": "Base",
    }
    assert upstream.asked == [
        {**common, "input": text, "path": "/v1/audio/speech"} for text in ("One here.", "Two there.")
    ]


def test_a_voice_to_clone_travels_along(engine: EngineProcess, upstream: Upstream, media: Path) -> None:
    clone = {
        "reference_audio": f"file://{media}/me.wav",
        "reference_text": "It is me.",
        "language": "Chinese",
    }
    said(engine, "Hello.", instructions="calmly", **clone)
    asked = upstream.asked[0]
    assert (asked["ref_text"], asked["language"], asked["instructions"]) == ("It is me.", "Chinese", "calmly")
    assert "voice" not in asked
    kind, _, content = asked["ref_audio"].partition(",")
    assert kind == "data:audio/wav;base64"
    recording = decode(b64decode(content))
    assert recording.seconds == pytest.approx(2, abs=0.01)
    assert recording.loudness == pytest.approx(9000 / math.sqrt(2), rel=0.05)


@pytest.mark.parametrize("name", ["reference_audio", "voice_audio", "prompt_audio"])
def test_a_recording_has_three_names(
    engine: EngineProcess, upstream: Upstream, media: Path, name: str
) -> None:
    said(engine, "Hello.", **{name: f"file://{media}/me.wav"})
    assert "ref_audio" in upstream.asked[0]


def test_recordings_that_cannot_be_used(engine: EngineProcess, upstream: Upstream, media: Path) -> None:
    bad = [
        f"file://{media}/{name}" for name in ("absent.wav", "noise.wav", "empty.wav", "short.wav", "long.wav")
    ]
    bad += [f"file://{media}/list.wav", f"file://{media}/list.m3u8", f"file://{media}"]
    bad += [
        f"file://{media}/../outside.wav",
        "file:///etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1/x.wav",
        "",
    ]
    for value in [*bad, 7, ["x"], {"url": "x"}]:
        body = {"input": "Hello.", "reference_audio": value}
        assert refused(engine, body) == (400, "reference_audio"), value
    both = {"reference_audio": f"file://{media}/me.wav", "voice_audio": f"file://{media}/me.wav"}
    assert refused(engine, {"input": "Hello.", **both}) == (400, "voice_audio")
    assert refused(engine, {"input": "Hello.", "reference_text": "alone"}) == (400, "reference_audio")
    assert upstream.asked == []
    assert said(engine, "Hello.")


def test_a_recording_is_decoded_apart(engine: EngineProcess, upstream: Upstream, media: Path) -> None:
    """Its format, rate and number of channels are a stranger's: limits hold, and a decoder that dies costs one file."""
    for name, channels, rate in (("many.wav", 64, 16_000), ("fast.wav", 1, 1_000_000)):
        with wave.open(str(media / name), "wb") as file:
            file.setparams((channels, 2, rate, 0, "NONE", ""))
            file.writeframes(bytes(2 * rate * channels))
        assert refused(engine, {"input": "Hello.", "reference_audio": f"file://{media}/{name}"}) == (
            400,
            "reference_audio",
        )
    for pid in children(engine):
        os.kill(pid, signal.SIGKILL)
    body = {"input": "Hello.", "reference_audio": f"file://{media}/me.wav"}
    assert engine.post(PATH, body).status_code in (200, 400)
    assert engine.post(PATH, body).status_code == 200


@pytest.mark.parametrize("stated", [0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_server_that_streams_does_not_know_its_length(
    engine: EngineProcess, upstream: Upstream, stated: int
) -> None:
    whole = tone(SENTENCE_S)
    at = whole.index(b"data") + 4
    upstream.answer = whole[:at] + stated.to_bytes(4, "little") + whole[at + 4 :]
    heard = decode(said(engine, "Hello.", response_format="wav"))
    assert heard.seconds == pytest.approx(SENTENCE_S, abs=0.02)


def children(engine: EngineProcess) -> list[int]:
    """The decoding processes."""
    tasks = Path(f"/proc/{engine.process.pid}/task").glob("*/children")
    found = " ".join(each.read_text() for each in tasks).split()
    return [int(pid) for pid in found if b"sounds.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_sound_leaves_before_the_second_sentence_is_made(engine: EngineProcess, upstream: Upstream) -> None:
    upstream.delay_s = 0.2
    began = time.monotonic()
    with (
        engine.client() as client,
        client.stream("POST", PATH, json={"input": TEN, "response_format": "pcm"}) as response,
    ):
        parts = response.iter_raw()
        first = next(parts)
        first_s, asked = time.monotonic() - began, len(upstream.asked)
        rest = b"".join(parts)
    whole_s = time.monotonic() - began
    assert asked <= 2
    assert first_s <= 0.25 * whole_s
    assert pcm(first + rest).seconds == pytest.approx(10 * SENTENCE_S + 9 * 0.12, abs=0.05)


def test_leaving_leaves_the_server_too(engine: EngineProcess, upstream: Upstream) -> None:
    upstream.delay_s = 0.5
    with engine.sent(PATH, {"input": TEN}, "left"):
        eventually(lambda: upstream.asked, "asked")
    eventually(lambda: not engine.running(), "released", 0.4)
    time.sleep(0.8)
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(
    ("theirs", "ours"), [(400, 400), (422, 400), (401, 500), (404, 500), (429, 500), (503, 500)]
)
def test_whose_fault_a_refusal_is(engine: EngineProcess, upstream: Upstream, theirs: int, ours: int) -> None:
    upstream.status, upstream.answer = theirs, b'{"error": {"message": "no such thing"}}'
    response = engine.post(PATH, {"input": "Hello."})
    assert response.status_code == ours
    assert "no such thing" in response.json()["error"]["message"]


@pytest.mark.parametrize("theirs", [400, 401, 500])
def test_the_key_is_sent_and_never_told(short_dir: Path, upstream: Upstream, theirs: int) -> None:
    options = {"upstream": upstream.url, "upstream_key_env": "SPEECH_KEY"}
    env = {"SPEECH_KEY": "sk-very-secret\n"}
    with running("speech", short_dir, "none", options=options, env=env) as engine:
        said(engine, "Hello.")
        assert upstream.headers[-1]["authorization"] == "Bearer sk-very-secret"
        # A key across the place where the answer is cut would be told in part.
        upstream.status, upstream.answer = theirs, b"x" * 490 + b" wrong key: sk-very-secret"
        told = engine.post(PATH, {"input": "Hello."}).text
    assert "sk-" not in told
    assert "xxx" in told


def test_a_key_that_no_header_can_hold_ends_the_start(short_dir: Path) -> None:
    options = {"upstream": "http://127.0.0.1:9", "upstream_key_env": "SPEECH_KEY"}
    with spawn("speech", short_dir, "none", options=options, env={"SPEECH_KEY": "sk-very\nsecret"}) as engine:
        errors = engine.process.communicate(timeout=60)[1]
    assert (engine.process.returncode, "SPEECH_KEY" in errors, "secret" in errors) == (3, True, False), errors


def test_an_answer_that_is_no_sound_is_the_servers_fault(engine: EngineProcess, upstream: Upstream) -> None:
    upstream.answer = b"<html>hello</html>"
    assert engine.post(PATH, {"input": "Hello."}).status_code == 500


def test_a_failure_in_the_middle_cuts_the_sound(engine: EngineProcess, upstream: Upstream) -> None:
    import httpx2

    upstream.break_after = 2
    with engine.client() as client, pytest.raises(httpx2.RemoteProtocolError):
        client.post(PATH, json={"input": TEN})


def test_a_failure_in_the_middle_is_an_event(engine: EngineProcess, upstream: Upstream) -> None:
    upstream.break_after = 2
    raw = engine.post(PATH, {"input": TEN, "stream_format": "sse"}).text
    events = [json.loads(block.removeprefix("data: ")) for block in raw.removesuffix("\n\n").split("\n\n")]
    assert [event.get("type") for event in events[:-1]] == ["speech.audio.delta"] * 2
    assert events[-1]["error"]["code"] == "engine_error"


def test_events_end_with_usage(engine: EngineProcess) -> None:
    events = spoken_events(engine.post(PATH, {"input": "Hello.", "stream_format": "sse"}).text)
    assert events[-1] == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 6, "output_tokens": 0, "total_tokens": 6},
    }


def test_names_of_fields_and_voices_are_options(short_dir: Path, upstream: Upstream, media: Path) -> None:
    options = {
        "upstream": f"{upstream.url}/audio/speech/",
        "reference_audio_field": "prompt_wav",
        "reference_text_field": "prompt_text",
        "voices": ["anna"],
        "default_voice": "anna",
    }
    with running("speech", short_dir, "none", options=options, media=media) as engine:
        assert engine.health()["voices"] == ["default", "anna"]
        assert refused(engine, {"input": "a", "voice": "bob"}) == (400, "voice")
        said(engine, "Hello.", reference_audio=f"file://{media}/me.wav", reference_text="Me.")
    asked = upstream.asked[0]
    assert (asked["voice"], asked["prompt_text"], asked["path"]) == ("anna", "Me.", "/v1/audio/speech")
    assert asked["prompt_wav"].startswith("data:")


def test_a_server_that_is_not_there(short_dir: Path) -> None:
    with running("speech", short_dir, "none", options={"upstream": "http://127.0.0.1:9"}) as engine:
        response = engine.post(PATH, {"input": "Hello."})
        assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_error")


@pytest.mark.parametrize(
    ("model", "options", "status", "words"),
    [
        ("none", {"upstream": "nonsense"}, 2, "option 'upstream' must be"),
        ("none", {"backend": "parrot"}, 2, "option 'backend' must be"),
        ("none", {"upstream": "http://x", "upstream_key_env": "NO_SUCH_KEY"}, 3, "NO_SUCH_KEY"),
        ("/nowhere", {}, 2, "no voice is found in /nowhere"),
        ("none", {"amphion": "/nowhere"}, 3, "must name a checkout of Amphion"),
    ],
)
def test_wrong_options_are_told(
    short_dir: Path, model: str, options: dict[str, Any], status: int, words: str
) -> None:
    with spawn("speech", short_dir, model, options=options) as engine:
        errors = engine.process.communicate(timeout=60)[1]
    assert (engine.process.returncode, words in errors.splitlines()[-1]) == (status, True), errors
