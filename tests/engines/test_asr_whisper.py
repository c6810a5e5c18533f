"""Whisper in the speech recognition engine: languages, translation, times, and what it refuses."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.engines.process import EngineProcess, demo_model, running, spawn
from tests.engines.test_asr import loud_parts, stream
from tests.engines.voices import Voices, bare

# Making the model takes a minute, the first time.
pytestmark = pytest.mark.timeout(400)
TRANSCRIBE, TRANSLATE = "/v1/audio/transcriptions", "/v1/audio/translations"
SAID = ("cat", "weather", "train", "station")


@pytest.fixture(scope="module")
def model() -> Path:
    return demo_model("demo-whisper")


@pytest.fixture(scope="module")
def phrases(model: Path) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in json.loads((model / "phrases.json").read_text("utf-8"))}


@pytest.fixture(scope="module")
def whisper(socket_dir: Path, voices: Voices, vad_model: Path, model: Path) -> Iterator[EngineProcess]:
    options = {"vad_model": str(vad_model), "threads": 1}
    with running("asr", socket_dir, str(model), options=options, media=voices.folder) as engine:
        yield engine


@pytest.fixture(scope="module")
def said(voices: Voices) -> str:
    return voices.say("whispered.wav", *SAID)


def ask(engine: EngineProcess, path: str, url: str, **more: Any) -> httpx2.Response:
    response = engine.post(path, {"file": url, **more})
    assert response.status_code == 200, response.text
    return response


def test_every_phrase_in_the_language_that_is_spoken(
    whisper: EngineProcess, voices: Voices, phrases: dict[str, dict[str, Any]]
) -> None:
    for name, phrase in phrases.items():
        body = ask(
            whisper, TRANSCRIBE, voices.say(f"{name}.wav", name), response_format="verbose_json"
        ).json()
        assert body["text"] == phrase["written"]
        assert body["language"] == {"en": "english", "zh": "chinese"}[phrase["language"]]
        assert body["task"] == "transcribe"


def test_the_language_is_found_segment_by_segment(
    whisper: EngineProcess, phrases: dict[str, dict[str, Any]], voices: Voices, said: str
) -> None:
    body = ask(whisper, TRANSCRIBE, said, response_format="verbose_json").json()
    assert [each["text"] for each in body["segments"]] == [phrases[name]["written"] for name in SAID]
    for segment, (start, end) in zip(
        body["segments"], loud_parts(voices.samples("whispered.wav")), strict=True
    ):
        assert (segment["start"], segment["end"]) == (
            pytest.approx(start, abs=0.2),
            pytest.approx(end, abs=0.2),
        )
        assert -0.5 < segment["avg_logprob"] <= 0
        assert 0 <= segment["no_speech_prob"] < 0.5
        assert segment["tokens"]


def test_a_language_that_is_asked_for_is_the_one_written(
    whisper: EngineProcess, voices: Voices, phrases: dict[str, dict[str, Any]]
) -> None:
    """Also where it is not the one that is spoken."""
    url = voices.say("weather.wav", "weather")
    assert ask(whisper, TRANSCRIBE, url, language="zh").json()["text"] == phrases["weather"]["written"]
    body = ask(whisper, TRANSCRIBE, url, language="en", response_format="verbose_json").json()
    assert body["language"] == "english"
    assert body["text"].isascii()


def test_translation_is_into_english(
    whisper: EngineProcess, phrases: dict[str, dict[str, Any]], said: str
) -> None:
    assert "audio/translations" in whisper.get("/health").json()["endpoints"]
    body = ask(whisper, TRANSLATE, said, response_format="verbose_json").json()
    wanted = [phrases[name]["english"] or phrases[name]["written"] for name in SAID]
    assert [each["text"] for each in body["segments"]] == wanted
    assert body["text"] == " ".join(wanted)
    assert (body["task"], body["language"]) == ("translate", "english")
    assert ask(whisper, TRANSLATE, said, response_format="text").text == " ".join(wanted) + "\n"
    assert "The weather is fine today." in ask(whisper, TRANSLATE, said, response_format="srt").text


def test_words_lie_in_their_segments(whisper: EngineProcess, said: str) -> None:
    granularities = ["segment", "word"]
    body = ask(
        whisper, TRANSCRIBE, said, response_format="verbose_json", timestamp_granularities=granularities
    ).json()
    assert bare("".join(each["word"] for each in body["words"])) == bare(body["text"])
    assert all(each["start"] <= each["end"] for each in body["words"])
    starts = [each["start"] for each in body["words"]]
    assert starts == sorted(starts)
    for segment in body["segments"]:
        inside = [
            each for each in body["words"] if segment["start"] - 0.3 <= each["start"] <= segment["end"] + 0.3
        ]
        assert bare("".join(each["word"] for each in inside)) == bare(segment["text"])


def test_segments_share_runs(whisper: EngineProcess, said: str) -> None:
    before = whisper.health()
    ask(whisper, TRANSCRIBE, said)
    after = whisper.health()
    assert after["items"] - before["items"] == len(SAID)
    assert after["batches"] - before["batches"] < len(SAID)


def test_a_stream(whisper: EngineProcess, voices: Voices, said: str) -> None:
    *deltas, last = stream(whisper, said)
    assert "".join(each["delta"] for each in deltas) == last["text"]
    assert last["text"] == ask(whisper, TRANSCRIBE, said).json()["text"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"itn": False}, "itn"),
        ({"tags": True, "response_format": "verbose_json"}, "tags"),
        ({"hotwords": "sofa"}, "hotwords"),
        ({"temperature": 0.4}, "temperature"),
        ({"prompt": "the sofa"}, "prompt"),
        ({"punctuation": False}, "punctuation"),
        ({"language": "fr"}, "language"),
    ],
)
def test_what_it_cannot_is_refused(
    whisper: EngineProcess, voices: Voices, body: dict[str, Any], param: str
) -> None:
    response = whisper.post(TRANSCRIBE, {"file": voices.url("hello.wav"), **body})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_silence_is_no_text(whisper: EngineProcess, voices: Voices) -> None:
    assert ask(whisper, TRANSCRIBE, voices.wav("still.wav", bytes(64_000))).json()["text"] == ""


def test_without_alignment_heads_there_are_no_words(
    socket_dir: Path, voices: Voices, model: Path, tmp_path: Path, said: str
) -> None:
    """And without a detector, the window bounds the segments."""
    plain = tmp_path / "plain"
    shutil.copytree(model, plain)
    rules = json.loads((plain / "generation_config.json").read_text("utf-8"))
    del rules["alignment_heads"]
    (plain / "generation_config.json").write_text(json.dumps(rules), "utf-8")
    with running("asr", socket_dir, str(plain), options={"threads": 1}, media=voices.folder) as engine:
        body = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
        response = engine.post(TRANSCRIBE, {"file": said, **body})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "timestamp_granularities")
        segments = ask(engine, TRANSCRIBE, said, response_format="verbose_json").json()["segments"]
        assert all(each["end"] - each["start"] <= 6 for each in segments)


def test_segments_longer_than_the_window_fail_the_load(socket_dir: Path, model: Path) -> None:
    with spawn("asr", socket_dir, str(model), options={"max_segment_seconds": 30.0}) as engine:
        assert engine.process.wait(90) == 3
        assert engine.process.stderr is not None
        assert "hears 6 s at a time" in engine.process.stderr.read()
