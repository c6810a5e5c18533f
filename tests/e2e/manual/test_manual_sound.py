"""The manual's calls for sound: texts that are said, and recordings that are written down."""

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.e2e.manual.names import LISTENER, SPEAKER
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.engines.heard import Heard, decode, pcm
from tests.engines.voices import Voices, bare

GREETING = "你好，欢迎来到这里。今天天气很好。"
SENTENCE = "The quick brown fox jumps over the lazy dog. "
Speech = dict[str, Any]


def said(http: httpx2.Client, **more: Any) -> httpx2.Response:
    response = http.post("audio/speech", json={"model": SPEAKER, "voice": "default"} | more)
    assert response.status_code == 200, response.text
    return response


def is_speech(heard: Heard, least: float, most: float) -> bool:
    return least < heard.seconds < most and heard.loudness > 300


# Speech


def test_a_greeting_is_saved(http: httpx2.Client, tmp_path: Path) -> None:
    response = said(http, input=GREETING, response_format="wav")
    assert response.headers["content-type"] == "audio/wav"
    file = tmp_path / "output.wav"
    file.write_bytes(response.content)
    heard = decode(file.read_bytes())
    assert heard.rate == 24_000
    assert is_speech(heard, 2, 8)


def test_mp3_is_what_comes_when_no_format_is_asked_for(http: httpx2.Client) -> None:
    response = said(http, input="这是测试。")
    assert response.headers["content-type"] == "audio/mpeg"
    assert is_speech(decode(response.content), 0.5, 4)


def test_twice_the_speed_is_half_the_length(http: httpx2.Client) -> None:
    normal, fast = (
        decode(said(http, input=SENTENCE, response_format="wav", speed=speed).content) for speed in (1, 2)
    )
    assert fast.seconds == pytest.approx(normal.seconds / 2, rel=0.15)


def test_the_client_hears_the_first_sentence_while_the_others_are_made(client: openai.OpenAI) -> None:
    """The first bytes come long before the last ones, and together they are the whole text."""
    began = time.monotonic()
    content = b""
    with client.audio.speech.with_streaming_response.create(
        model=SPEAKER, voice="default", input=SENTENCE * 60, response_format="pcm"
    ) as response:
        pieces = response.iter_bytes()
        content += next(pieces)
        first = time.monotonic() - began
        content += b"".join(pieces)
    whole = time.monotonic() - began
    assert first < whole / 2
    one = decode(
        client.audio.speech.create(
            model=SPEAKER, voice="default", input=SENTENCE, response_format="wav"
        ).content
    )
    assert pcm(content).seconds == pytest.approx(60 * one.seconds, rel=0.15)


# Recordings


@pytest.fixture
def tea(voices: Voices) -> bytes:
    return (voices.folder / "tea.wav").read_bytes()


@pytest.fixture
def mixed(voices: Voices) -> bytes:
    return (voices.folder / "mixed.wav").read_bytes()


MIXED = ("cat", "weather", "train")


def heard(http: httpx2.Client, content: bytes, **more: Any) -> httpx2.Response:
    data = {"model": LISTENER, **more}
    response = http.post("audio/transcriptions", files={"file": ("audio.wav", content)}, data=data)
    assert response.status_code == 200, response.text
    return response


def test_a_recording_is_written_down(http: httpx2.Client, tea: bytes) -> None:
    assert heard(http, tea).json()["text"] == "She drinks green tea every morning."


def test_a_recording_by_the_client(client: openai.OpenAI, voices: Voices) -> None:
    with (voices.folder / "tea.wav").open("rb") as file:
        answer = client.audio.transcriptions.create(model=LISTENER, file=file, language="en")
    assert answer.text == "She drinks green tea every morning."


@pytest.mark.parametrize(("form", "point"), [("srt", ","), ("vtt", ".")])
def test_subtitles(http: httpx2.Client, voices: Voices, mixed: bytes, form: str, point: str) -> None:
    text = heard(http, mixed, response_format=form).text
    assert text.startswith("WEBVTT") == (form == "vtt")
    clock = rf"(\d\d):(\d\d):(\d\d){re.escape(point)}(\d\d\d)"
    cues = re.findall(rf"{clock} --> {clock}\n(.+)\n", text)
    assert [cue[8] for cue in cues] == [voices.phrases[name]["written"] for name in MIXED]
    times = [seconds(cue[part : part + 4]) for cue in cues for part in (0, 4)]
    assert times == sorted(times)
    assert len(set(times)) == len(times)
    assert times[-1] <= len(voices.samples("mixed.wav")) / 32_000


def seconds(parts: tuple[str, ...]) -> float:
    hours, minutes, whole, thousandths = (int(part) for part in parts)
    return hours * 3600 + minutes * 60 + whole + thousandths / 1000


def test_everything_about_a_recording(client: openai.OpenAI, voices: Voices, mixed: bytes) -> None:
    answer = client.audio.transcriptions.create(
        model=LISTENER,
        file=("mixed.wav", mixed),
        response_format="verbose_json",
        timestamp_granularities=["segment", "word"],
    )
    assert bare(answer.text) == voices.written(*MIXED)
    assert answer.duration == pytest.approx(len(voices.samples("mixed.wav")) / 32_000, abs=0.01)
    assert [segment.text for segment in answer.segments or ()] == [
        voices.phrases[name]["written"] for name in MIXED
    ]
    starts = [word.start for word in answer.words or ()]
    assert len(starts) > 8
    assert starts == sorted(starts)


def test_a_recording_of_half_an_hour_in_the_background(
    http: httpx2.Client, stack: Stack, voices: Voices
) -> None:
    """Accepted at once; its progress is shown until the text is there."""
    voices.wav("half-hour.wav", voices.samples("tea.wav") * 680)
    with (voices.folder / "half-hour.wav").open("rb") as file:
        accepted = http.post(
            "audio/transcriptions", files={"file": file}, data={"model": LISTENER, "background": "true"}
        )
    assert accepted.status_code == 202, accepted.text
    job_id = accepted.json()["id"]
    seen: list[float] = []

    def ended() -> Any:
        job = stack.job(job_id)
        if job["state"] == "running" and job["progress"] is not None:
            seen.append(job["progress"])
        return job["state"] not in ("queued", "running") and job

    job = until(ended, "the recording is written down", within=120)
    assert job["state"] == "succeeded", job["error"]
    assert bare(job["result"]["text"]) == voices.written("tea") * 680
    assert seen == sorted(seen)
    assert any(0 < share < 1 for share in seen)


def test_a_text_while_it_is_heard(client: openai.OpenAI, voices: Voices) -> None:
    voices.wav("minute.wav", voices.samples("tea.wav") * 40)
    with client.audio.transcriptions.create(
        model=LISTENER, file=("minute.wav", (voices.folder / "minute.wav").read_bytes()), stream=True
    ) as stream:
        events = list(stream)
    *deltas, last = events
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 1
    assert last.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas if event.type == "transcript.text.delta") == last.text
    assert bare(last.text) == voices.written("tea") * 40


def test_several_recordings_in_one_call(
    http: httpx2.Client, tea: bytes, mixed: bytes, voices: Voices
) -> None:
    files = [("files", ("tea.wav", tea)), ("files", ("mixed.wav", mixed))]
    response = http.post("audio/transcriptions", files=files, data={"model": LISTENER})
    assert response.status_code == 200, response.text
    found = response.json()["data"]
    assert [(each["index"], each["filename"]) for each in found] == [(0, "tea.wav"), (1, "mixed.wav")]
    assert [bare(each["text"]) for each in found] == [voices.written("tea"), voices.written(*MIXED)]


def test_what_was_said_here_is_understood_here(http: httpx2.Client) -> None:
    """Speech of one call is the recording of the next one."""
    wav = said(http, input="今天天气很好。", response_format="wav").content
    assert heard(http, wav).json()["text"].rstrip("。") == "今天天气很好"


def test_what_is_no_recording_is_refused(http: httpx2.Client) -> None:
    files = {"file": ("audio.wav", io.BytesIO(json.dumps({"no": "sound"}).encode() * 100))}
    response = http.post("audio/transcriptions", files=files, data={"model": LISTENER})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "file"
