"""The speech recognition engine: texts, shapes, times, streams, batches."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.engines.process import EngineProcess, eventually
from tests.engines.voices import Voices, bare

# Making the model takes a minute where nobody else works, the first time.
pytestmark = pytest.mark.timeout(400)

PATH = "/v1/audio/transcriptions"
MIXED = ("cat", "weather", "train", "drink", "nine")
STEMS = (
    "hello",
    "cat",
    "lights",
    "nine",
    "tea",
    "train",
    "nihao",
    "weather",
    "window",
    "drink",
    "three",
    "station",
)


def ask(engine: EngineProcess, url: str, **more: Any) -> httpx2.Response:
    response = engine.post(PATH, {"file": url, **more})
    assert response.status_code == 200, response.text
    return response


def text(engine: EngineProcess, url: str, **more: Any) -> str:
    return str(ask(engine, url, **more).json()["text"])


@pytest.fixture(scope="module")
def mixed(voices: Voices) -> str:
    return voices.say("mixed.wav", *MIXED)


@pytest.mark.parametrize("name", STEMS)
def test_every_phrase_is_understood(asr: EngineProcess, voices: Voices, name: str) -> None:
    url, phrase = voices.say(f"{name}.wav", name), voices.phrases[name]
    assert text(asr, url) == phrase["written"]
    assert text(asr, url, itn=False) == phrase["plain"]
    assert text(asr, url, language=phrase["language"]) == phrase["written"]


@pytest.mark.parametrize(("voice", "speed"), [(1, 140), (2, 180)])
def test_other_voices_say_the_same(asr: EngineProcess, voices: Voices, voice: int, speed: int) -> None:
    for name in ("tea", "window"):
        url = voices.say(f"{name}-{voice}.wav", name, voice=voice, speed=speed)
        assert text(asr, url) == voices.phrases[name]["written"]


def test_the_language_is_told(asr: EngineProcess, voices: Voices) -> None:
    urls = [voices.say(f"{name}.wav", name) for name in ("cat", "three")]
    found = [ask(asr, url, response_format="verbose_json").json() for url in urls]
    assert [body["language"] for body in found] == ["english", "chinese"]


def test_silences_separate_phrases(asr: EngineProcess, voices: Voices, mixed: str) -> None:
    body = ask(asr, mixed, response_format="verbose_json").json()
    assert [segment["text"] for segment in body["segments"]] == [
        voices.phrases[name]["written"] for name in MIXED
    ]
    assert (
        body["text"]
        == "The cat sleeps on the sofa.今天天气很好。Where is the next train?我喜欢喝茶。We meet at 9."
    )


def loud_parts(samples: bytes) -> list[tuple[float, float]]:
    """Where the phrases lie: the fixture's silences are digital ones of more than a second."""
    values = memoryview(samples).cast("h")
    loud = [place for place in range(0, len(values), 160) if max(map(abs, values[place : place + 160])) > 300]
    parts = [[loud[0], loud[0]]]
    for place in loud:
        if place - parts[-1][1] > 12_000:
            parts.append([place, place])
        parts[-1][1] = place
    return [(start / 16_000, (end + 160) / 16_000) for start, end in parts]


def test_times_are_those_of_the_speech(asr: EngineProcess, voices: Voices, mixed: str) -> None:
    granularities = ["segment", "word"]
    body = ask(asr, mixed, response_format="verbose_json", timestamp_granularities=granularities).json()
    truth = loud_parts(voices.samples("mixed.wav"))
    assert len(truth) == len(body["segments"]) == len(MIXED)
    for segment, (start, end) in zip(body["segments"], truth, strict=True):
        assert segment["start"] == pytest.approx(start, abs=0.2)
        assert segment["end"] == pytest.approx(end, abs=0.2)
        words = [word for word in body["words"] if segment["start"] - 0.2 <= word["start"] <= segment["end"]]
        assert bare(re.sub(r"[.,?。，？]", "", segment["text"])) == bare(
            "".join(word["word"] for word in words)
        )
        assert all(word["start"] < word["end"] for word in words)
    starts = [word["start"] for word in body["words"]]
    assert starts == sorted(starts)
    assert body["duration"] == pytest.approx(len(voices.samples("mixed.wav")) / 32_000, abs=0.001)


def test_verbose_json_is_openais(asr: EngineProcess, mixed: str) -> None:
    body = ask(asr, mixed, response_format="verbose_json").json()
    assert body["task"] == "transcribe"
    assert "words" not in body
    assert body["usage"] == {"type": "duration", "seconds": 13}
    names = ("id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob")
    for place, segment in enumerate(body["segments"]):
        assert set(segment) == {*names, "compression_ratio", "no_speech_prob"}
        assert segment["id"] == place
        assert -1 < segment["avg_logprob"] <= 0
        assert 0 <= segment["no_speech_prob"] < 0.5
        assert segment["tokens"]


def test_json_and_text(asr: EngineProcess, voices: Voices) -> None:
    body = ask(asr, voices.url("hello.wav")).json()
    assert body == {"text": "Hello world.", "model": asr.name, "usage": {"type": "duration", "seconds": 2}}
    plain = ask(asr, voices.url("hello.wav"), response_format="text")
    assert plain.text == "Hello world.\n"
    assert plain.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("form", "media", "point"), [("srt", "application/x-subrip", ","), ("vtt", "text/vtt", ".")]
)
def test_subtitles(asr: EngineProcess, voices: Voices, mixed: str, form: str, media: str, point: str) -> None:
    response = ask(asr, mixed, response_format=form)
    assert response.headers["content-type"].startswith(media)
    assert (form == "vtt") == response.text.startswith("WEBVTT\n\n")
    clock = rf"(\d+):(\d\d):(\d\d){re.escape(point)}(\d\d\d)"
    cues = re.findall(rf"{clock} --> {clock}\n(.+)\n", response.text)
    assert [each[8] for each in cues] == [voices.phrases[name]["written"] for name in MIXED]
    for each, truth in zip(cues, loud_parts(voices.samples("mixed.wav")), strict=True):
        for (hours, minutes, seconds, thousandths), wanted in zip((each[:4], each[4:8]), truth, strict=True):
            at = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(thousandths) / 1000
            assert at == pytest.approx(wanted, abs=0.2)


def stream(engine: EngineProcess, url: str, **more: Any) -> list[dict[str, Any]]:
    """The events, each checked to be named as its type says."""
    with (
        engine.client() as client,
        client.stream("POST", PATH, json={"file": url, "stream": True, **more}) as response,
    ):
        raw = response.read().decode()
        assert response.status_code == 200, raw
    blocks = raw.removesuffix("\n\n").split("\n\n")
    assert blocks.pop() == "data: [DONE]"
    events = []
    for block in blocks:
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


@pytest.mark.parametrize("form", ["json", "verbose_json", "text", "srt", "vtt"])
def test_a_stream_ends_with_the_whole_answer(asr: EngineProcess, voices: Voices, form: str) -> None:
    url = voices.wav("minutes.wav", voices.samples("hello.wav") * 90)
    *deltas, last = stream(asr, url, response_format=form)
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 1
    assert "".join(event["delta"] for event in deltas) == last["text"]
    assert last["type"] == "transcript.text.done"
    whole = ask(asr, url, response_format=form)
    assert last["response"] == (whole.json() if form.endswith("json") else whole.text)
    assert bare(last["text"]) == "Helloworld." * 90


def test_tags(asr: EngineProcess, mixed: str) -> None:
    segments = ask(asr, mixed, response_format="verbose_json", tags=True).json()["segments"]
    assert [each["language"] for each in segments] == ["en", "zh", "en", "zh", "en"]
    assert {(each["emotion"], each["event"]) for each in segments} == {("NEUTRAL", "Speech")}


def test_requests_that_arrive_together_share_runs(asr: EngineProcess, voices: Voices, mixed: str) -> None:
    before = asr.health()
    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda _: bare(text(asr, mixed)), range(32)))
    after = asr.health()
    assert set(texts) == {voices.written(*MIXED)}
    items, batches = (after[name] - before[name] for name in ("items", "batches"))
    assert items == 32 * len(MIXED)
    assert batches < items / 2


def test_requests_of_other_modes_do_not_mix(asr: EngineProcess, voices: Voices, mixed: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda number: bare(text(asr, mixed, itn=number % 2 == 0)), range(16)))
    assert set(texts[::2]) == {voices.written(*MIXED)}
    assert set(texts[1::2]) == {voices.plain(*MIXED)}


def test_files_in_one_request(asr: EngineProcess, voices: Voices) -> None:
    files = [
        {"file": voices.say("tea.wav", "tea"), "filename": "first.wav"},
        {"file": voices.write("broken.mp3", b"no sound at all" * 50), "filename": "broken.mp3"},
        {"file": "file:///etc/passwd", "filename": "secret"},
        {"file": voices.say("drink.wav", "drink")},
    ]
    response = asr.post(PATH, {"files": files})
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["object"] == "list"
    assert [(each["index"], each["filename"]) for each in body["data"]] == [
        (0, "first.wav"),
        (1, "broken.mp3"),
        (2, "secret"),
        (3, "drink.wav"),
    ]
    assert [each.get("text") for each in body["data"]] == [
        "She drinks green tea every morning.",
        None,
        None,
        "我喜欢喝茶。",
    ]
    assert [each["error"]["param"] for each in body["data"][1:3]] == ["files[1].file", "files[2].file"]
    assert body["data"][0]["segments"][0]["start"] == pytest.approx(0.3, abs=0.2)


def test_files_in_the_text_format_that_was_asked_for(asr: EngineProcess, voices: Voices) -> None:
    url = voices.say("tea.wav", "tea")
    for form in ("srt", "vtt", "text"):
        alone = asr.post(PATH, {"file": url, "response_format": form}).text
        (entry,) = asr.post(PATH, {"files": [{"file": url}], "response_format": form}).json()["data"]
        assert entry["content"] == alone
        assert entry["segments"]


def test_progress_and_leaving(asr: EngineProcess, voices: Voices) -> None:
    """An hour takes long enough to be watched; its caller leaves, and the engine is free at once."""
    with asr.sent(PATH, {"file": voices.url("hour.wav")}, "hour"):

        def progress() -> Any:
            return next((run for run in asr.get("/runs").json()["runs"] if run["id"] == "hour"), None)

        seen = eventually(lambda: (run := progress()) and run["done"] > 60 and run, "more than a minute done")
        assert seen["stage"] == "recognising"
        assert seen["total"] == pytest.approx(3600, abs=10)
        assert seen["done"] < 3600
    eventually(lambda: "hour" not in asr.running(), "released", 1.0)
    eventually(lambda: asr.health()["waiting"] == 0, "nothing waits", 1.0)
    batches = asr.health()["batches"]
    assert text(asr, voices.url("hello.wav")) == "Hello world."
    assert asr.health()["batches"] - batches < 5
