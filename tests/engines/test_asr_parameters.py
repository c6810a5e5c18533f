"""The fields of a transcription request: each is honoured or refused by name."""

from typing import Any

import pytest

from tests.engines.process import EngineProcess
from tests.engines.voices import Voices

pytestmark = pytest.mark.timeout(400)
PATH = "/v1/audio/transcriptions"


def refused(engine: EngineProcess, voices: Voices, **body: Any) -> dict[str, Any]:
    response = engine.post(PATH, {"file": voices.url("hello.wav"), **body})
    assert response.status_code == 400, response.text
    return dict(response.json()["error"])


@pytest.mark.parametrize(
    "body",
    [
        {"temperature": 0.0},
        {"temperature": 0},
        {"prompt": ""},
        {"hotwords": []},
        {"chunking_strategy": "auto"},
        {"include": []},
        {"language": "en-US"},
        {"language": "english"},
        {"language": "AUTO"},
        {"filename": "a.wav"},
        {"tags": False, "diarize": False, "speakers": False, "stream": False},
    ],
)
def test_what_asks_for_nothing_is_accepted(asr: EngineProcess, voices: Voices, body: dict[str, Any]) -> None:
    response = asr.post(PATH, {"file": voices.url("hello.wav"), **body})
    assert response.status_code == 200, response.text
    assert response.json()["text"] == "Hello world."


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"prompt": "names: Ada"}, "prompt"),
        ({"hotwords": "Ada Byron"}, "hotwords"),
        ({"include": ["logprobs"]}, "include"),
        ({"chunking_strategy": {"type": "server_vad"}}, "chunking_strategy"),
        ({"diarize": True}, "diarize"),
        ({"speakers": True}, "speakers"),
        ({"punctuation": False}, "punctuation"),
        ({"itn": False, "punctuation": True}, "punctuation"),
        ({"beam_size": 5}, "beam_size"),
    ],
)
def test_what_cannot_be_done_is_refused(
    asr: EngineProcess, voices: Voices, body: dict[str, Any], param: str
) -> None:
    error = refused(asr, voices, **body)
    assert (error["param"], error["code"]) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"language": "fr"}, "language"),
        ({"language": 3}, "language"),
        ({"response_format": "xml"}, "response_format"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"response_format": "verbose_json", "timestamp_granularities": ["line"]}, "timestamp_granularities"),
        ({"response_format": "verbose_json", "timestamp_granularities": "word"}, "timestamp_granularities"),
        ({"tags": True}, "tags"),
        ({"itn": "yes"}, "itn"),
        ({"files": [{"file": "file:///x"}]}, "files"),
        ({"hotwords": [["a"]]}, "hotwords"),
        ({"filename": 7}, "filename"),
    ],
)
def test_what_is_wrong_names_its_field(
    asr: EngineProcess, voices: Voices, body: dict[str, Any], param: str
) -> None:
    assert refused(asr, voices, **body)["param"] == param


@pytest.mark.parametrize(
    "files", [[], ["file:///x"], [{"file": "x", "more": 1}], [{"filename": 3}], "a", [{}] * 257]
)
def test_wrong_lists_of_files(asr: EngineProcess, files: Any) -> None:
    response = asr.post(PATH, {"files": files})
    assert (response.status_code, response.json()["error"]["param"][:5]) == (400, "files")


def test_several_files_are_not_streamed(asr: EngineProcess, voices: Voices) -> None:
    response = asr.post(PATH, {"files": [{"file": voices.url("hello.wav")}], "stream": True})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "stream")


@pytest.mark.parametrize(
    "hotwords",
    [
        "http://127.0.0.1:1/words.txt",
        "/etc/passwd",
        "words.txt",
        ["../secret"],
        "file:///etc/hosts",
        "a" * 100,
    ],
)
def test_hotwords_are_plain_words(asr: EngineProcess, voices: Voices, hotwords: Any) -> None:
    error = refused(asr, voices, hotwords=hotwords)
    assert error["param"] == "hotwords"
    assert "not a plain word" in error["message"]


def test_a_language_that_is_missing_lists_those_that_are_there(asr: EngineProcess, voices: Voices) -> None:
    message = refused(asr, voices, language="fr")["message"]
    assert "'fr'" in message
    assert "auto, zh, en, yue, ja, ko" in message


def test_translation_is_refused_by_a_model_that_cannot(asr: EngineProcess, voices: Voices) -> None:
    assert asr.get("/health").json()["endpoints"] == ["audio/transcriptions"]
    response = asr.post("/v1/audio/translations", {"file": voices.url("hello.wav")})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_endpoint")
