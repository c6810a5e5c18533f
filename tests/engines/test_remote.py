"""The remote engine against a real server: what it sends, what it gives back, and what it keeps to itself."""

import base64
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import EngineProcess, eventually, running, spawn
from tests.engines.upstream import Upstream, upstream

KEY = "sk-secret-of-ours"
CHAT = "/v1/chat/completions"
MOST_BYTES = 128 * 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n and so on"
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt and so on"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "file: hello"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream() as running_server:
        yield running_server


@pytest.fixture
def other(server: Upstream) -> Upstream:
    """The server, as if nobody had used it."""
    server.received.clear()
    server.left.clear()
    server.answers({"model": "theirs"})
    return server


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    (folder / "picture").write_bytes(PNG)
    (folder / "sound").write_bytes(WAV)
    return folder


@pytest.fixture(scope="module")
def remote(server: Upstream, socket_dir: Path, media: Path) -> Iterator[EngineProcess]:
    options = {"url": server.url, "key_env": "THEIR_KEY", "remote_model": "their-model"}
    options["headers"] = {"x-team": "blue"}
    options["timeout_s"] = 2
    with running("remote", socket_dir, options=options, env={"THEIR_KEY": KEY}, media=media) as engine:
        yield engine


def test_the_request_is_theirs_and_the_answer_ours(remote: EngineProcess, other: Upstream) -> None:
    other.answers({"model": "their-model-2026-01-01", "choices": [{"text": '"model":"their-model"'}]})
    answer = remote.post(CHAT, HELLO | {"model": remote.name, "temperature": 0.5, "unheard_of": [1]})
    (request,) = other.received
    assert request.path == CHAT
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-team"] == "blue"
    assert request.json() == HELLO | {"model": "their-model", "temperature": 0.5, "unheard_of": [1]}
    assert answer.json() == {"model": remote.name, "choices": [{"text": '"model":"their-model"'}]}


def test_health_names_the_host_and_no_secret(remote: EngineProcess, other: Upstream) -> None:
    health = remote.health()
    assert health["upstream"] == f"127.0.0.1:{other.server_port}"
    assert KEY not in json.dumps(health)


def test_events_are_whole_and_bear_our_name(remote: EngineProcess, other: Upstream) -> None:
    events = [
        b'data: {"id":"1","model":"their-model-x","choices":[{"text":"\\"model\\":\\"mine\\""}]}',
        b'data: {"id":"2","model": "their-model-x","choices":[]}',
        b"data: [DONE]",
    ]
    raw = b": keep alive\r\n\r\n" + b"\n\n".join(events) + b"\n\n"
    pieces = [raw[at : at + 7] for at in range(0, len(raw), 7)]
    other.answers(media="text/event-stream; charset=utf-8", pieces=pieces)
    with remote.client() as client:
        answer = client.post(CHAT, json=HELLO | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    comment, *blocks, done, nothing = answer.text.split("\n\n")
    assert (comment, done, nothing) == (": keep alive", "data: [DONE]", "")
    shown = [json.loads(block.removeprefix("data: ")) for block in blocks]
    assert [event["model"] for event in shown] == [remote.name] * 2
    assert shown[0]["choices"][0]["text"] == '"model":"mine"'


def test_events_come_when_they_are_sent(remote: EngineProcess, other: Upstream) -> None:
    """And a caller who leaves makes us leave the upstream."""
    other.answers(media="text/event-stream", pieces=[b'data: {"n":1}\n\n'] * 1000, pause_s=0.01)
    with remote.client() as client, client.stream("POST", CHAT, json=HELLO) as response:
        assert next(response.iter_bytes()).startswith(b'data: {"n":1}\n\n')
        assert not other.left.is_set()
    assert other.left.wait(5)
    eventually(lambda: not remote.running(), "released")


def test_a_stream_that_breaks_off_ends_with_an_error(remote: EngineProcess, other: Upstream) -> None:
    other.answers(
        media="text/event-stream", pieces=[b'data: {"n":1}\n\n', b'data: {"n":', b"later"], pause_s=2.5
    )
    with remote.client() as client:
        answer = client.post(CHAT, json=HELLO)
    first, last, nothing = answer.text.split("\n\n")
    assert (first, nothing) == ('data: {"n":1}', "")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_error"


@pytest.mark.parametrize("last", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n\r\n"])
@pytest.mark.parametrize("border", [b"\n\n", b"\r\n\r\n"])
def test_what_follows_the_last_empty_line_is_sent_too(
    remote: EngineProcess, other: Upstream, last: bytes, border: bytes
) -> None:
    raw = b'data: {"model":"theirs"}' + border + last
    for cut in range(len(raw) - len(last) - len(border), len(raw) + 1):
        other.answers(media="text/event-stream", pieces=[piece for piece in (raw[:cut], raw[cut:]) if piece])
        with remote.client() as client:
            answer = client.post(CHAT, json=HELLO)
        first, done = answer.text.rstrip().split("\n\n")
        assert json.loads(first.removeprefix("data: ")) == {"model": remote.name}
        assert done == "data: [DONE]"


def test_a_long_event_is_read_in_the_time_its_length_needs(remote: EngineProcess, other: Upstream) -> None:
    start, pieces = b'data: {"model":"theirs","text":"', [b"x" * 1024] * 4096
    other.answers(media="text/event-stream", pieces=[start, *pieces, b'"}\n\n'], pause_s=0.0001)
    began = cpu_seconds(remote)
    with remote.client() as client:
        answer = client.post(CHAT, json=HELLO)
    assert len(json.loads(answer.text.removeprefix("data: "))["text"]) == 4 * 2**20
    assert cpu_seconds(remote) - began < 4


def cpu_seconds(engine: EngineProcess) -> float:
    fields = Path(f"/proc/{engine.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_an_answer_without_end_is_not_kept(remote: EngineProcess, other: Upstream) -> None:
    """Compressed it is small: what counts is what it unpacks to."""
    bomb = gzip.compress(bytes(MOST_BYTES + 1), 1)
    for media in ("application/json", "text/plain", "text/event-stream"):
        other.answers(bomb, media=media, headers={"content-encoding": "gzip"})
        with remote.client() as client:
            answer = client.post(CHAT, json=HELLO)
        error = json.loads(answer.text.removeprefix("data: "))["error"]
        assert (error["code"], str(MOST_BYTES) in error["message"]) == ("upstream_error", True)


def test_an_error_without_end_is_not_read_to_its_end(remote: EngineProcess, other: Upstream) -> None:
    other.answers(status=400, media="text/plain", pieces=[b"no! " * 4096] * 1000, pause_s=0.01)
    answer = remote.post(CHAT, HELLO)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert other.left.wait(5)


def test_sound_comes_as_it_is(remote: EngineProcess, other: Upstream) -> None:
    other.answers(media="audio/mpeg", pieces=[b"\x00\xff", b"\x01"])
    answer = remote.post("/v1/audio/speech", {"input": "hello"})
    assert (answer.headers["content-type"], answer.content) == ("audio/mpeg", b"\x00\xff\x01")


def test_files_in_a_chat_become_data(remote: EngineProcess, other: Upstream, media: Path) -> None:
    picture, sound = ((media / name).as_uri() for name in ("picture", "sound"))
    content = [
        {"type": "text", "text": picture},
        {"type": "image_url", "image_url": {"url": picture, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}},
        {"type": "image", "source": {"type": "url", "url": picture}},
    ]
    assert remote.post(CHAT, {"messages": [{"role": "user", "content": content}]}).status_code == 200
    text, image, audio, source = other.received[0].json()["messages"][0]["content"]
    shown = base64.b64encode(PNG).decode()
    assert text == content[0]
    assert image["image_url"] == {"url": f"data:image/png;base64,{shown}", "detail": "low"}
    assert audio["input_audio"] == {"data": base64.b64encode(WAV).decode(), "format": "wav"}
    assert source["source"] == {"type": "base64", "media_type": "image/png", "data": shown}


def test_a_sound_is_sent_as_a_form(remote: EngineProcess, other: Upstream, media: Path) -> None:
    other.answers(b"1\n00:00 --> 00:01\nhello\n", media="text/srt")
    body = {
        "file": (media / "sound").as_uri(),
        "response_format": "srt",
        "temperature": 0.2,
        "language": None,
    }
    answer = remote.post("/v1/audio/transcriptions", body | {"timestamp_granularities": ["word", "segment"]})
    assert (answer.headers["content-type"], answer.text[:2]) == ("text/srt", "1\n")
    form = other.received[0].form()
    assert form["file"] == [("file0.wav", "audio/wav", WAV)]
    plain = {name: [part[2].decode() for part in parts] for name, parts in form.items() if name != "file"}
    assert plain == {
        "model": ["their-model"],
        "response_format": ["srt"],
        "temperature": ["0.2"],
        "timestamp_granularities[]": ["word", "segment"],
    }


def test_pictures_are_sent_as_a_form_and_asked_for_themselves(
    remote: EngineProcess, other: Upstream, media: Path
) -> None:
    other.answers({"created": 1, "data": [{"b64_json": "AAAA"}]})
    picture = (media / "picture").as_uri()
    body = {"image": [picture, picture], "prompt": "a cat", "response_format": "url"}
    assert remote.post("/v1/images/edits", body).json()["data"] == [{"b64_json": "AAAA"}]
    form = other.received[0].form()
    assert form["image[]"] == [("image0.png", "image/png", PNG), ("image1.png", "image/png", PNG)]
    assert form["response_format"][0][2] == b"b64_json"
    assert remote.post("/v1/images/generations", {"prompt": "a cat"}).status_code == 200
    assert other.received[1].json()["response_format"] == "b64_json"
    other.answers({"data": [{"url": "https://elsewhere/x.png"}]})
    assert remote.post("/v1/images/generations", {"prompt": "a cat"}).status_code == 502


@pytest.mark.parametrize(
    "name", ["file:///etc/hostname", "/etc/hostname", "https://elsewhere/x.wav", 7, None]
)
def test_no_other_file_is_sent(remote: EngineProcess, other: Upstream, name: Any) -> None:
    for path, body in (
        ("/v1/audio/transcriptions", {"file": name}),
        ("/v1/images/edits", {"image": name, "prompt": "x"}),
    ):
        assert remote.post(path, body).status_code == 400
    if name == "file:///etc/hostname":
        parts = [{"type": "image_url", "image_url": {"url": name}}]
        assert remote.post(CHAT, {"messages": [{"role": "user", "content": parts}]}).status_code == 400
    assert not other.received


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
def test_errors_are_handed_on(remote: EngineProcess, other: Upstream, status: int) -> None:
    error = {"message": f"no, {KEY}", "type": "their_type", "param": "top_p", "code": "their_code"}
    other.answers({"error": error}, status=status, headers={"retry-after": "7"})
    answer = remote.post(CHAT, HELLO)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    assert answer.json() == {"error": error | {"message": "no, ***"}}


@pytest.mark.parametrize("body", [b"<html>down</html>", b"", b"[]", b'{"error":"short"}', b'{"error":{}}'])
def test_errors_of_another_form_become_ours(remote: EngineProcess, other: Upstream, body: bytes) -> None:
    other.answers(body, status=503, media="text/html")
    error = remote.post(CHAT, HELLO).json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == "short" if b"short" in body else "503" in error["message"]


@pytest.mark.parametrize("status", [401, 403, 302])
def test_a_refused_key_is_our_fault_and_stays_secret(
    remote: EngineProcess, other: Upstream, status: int
) -> None:
    message = f"Incorrect API key provided: {KEY}"
    other.answers({"error": {"message": message}}, status=status, headers={"location": "http://127.0.0.1:1/"})
    answer = remote.post(CHAT, HELLO)
    assert answer.status_code == 502
    assert KEY not in answer.text
    assert len(other.received) == 1


def test_nonsense_and_silence_are_the_upstream_s_fault(remote: EngineProcess, other: Upstream) -> None:
    other.answers(b"{nonsense")
    assert remote.post(CHAT, HELLO).json()["error"]["code"] == "upstream_error"
    other.answers(pieces=[b"{", b"}"], pause_s=3)
    answer = remote.post(CHAT, HELLO)
    assert (answer.status_code, "in time" in answer.json()["error"]["message"]) == (502, True)


def test_an_upstream_that_is_not_there(socket_dir: Path) -> None:
    with running("remote", socket_dir, "http://127.0.0.1:1/v1") as engine:
        answer = engine.post(CHAT, HELLO)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
        assert engine.health()["status"] == "ready"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "url"),
        ({"url": "ftp://host/v1"}, "url"),
        ({"url": "https://me:hunter2@host/v1"}, "url"),
        ({"url": "https://host/v1", "key_env": "NOT_THERE"}, "NOT_THERE"),
        ({"url": "https://host/v1", "headers": {"Authorization": "Bearer x"}}, "key_env"),
        ({"url": "https://host/v1", "headers": {"x-a": "b\r\nc: d"}}, "x-a"),
        ({"url": "https://host/v1", "timeout_s": 0}, "timeout_s"),
    ],
)
def test_wrong_options_end_it_with_a_reason(socket_dir: Path, options: dict[str, Any], word: str) -> None:
    with spawn("remote", socket_dir, options=options) as engine:
        words = engine.process.communicate(timeout=30)[1]
    assert engine.process.returncode == 2
    assert word in words
    assert "hunter2" not in words
