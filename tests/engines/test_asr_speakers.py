"""Who speaks: segments that name their speaker, the same one each time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.engines.process import EngineProcess, demo_model, running, spawn
from tests.engines.test_asr import stream
from tests.engines.test_asr_faults import told
from tests.engines.voices import Voices

# Making the model takes a minute, the first time.
pytestmark = pytest.mark.timeout(400)
PATH = "/v1/audio/transcriptions"
# Voice and pitch of the speakers that the model knows.
LOW, WOMAN, HIGH = (0, 10), (2, 60), (0, 95)
TALK = (("cat", LOW), ("train", WOMAN), ("tea", LOW), ("lights", WOMAN), ("nine", LOW), ("cat", WOMAN))


@pytest.fixture(scope="module")
def engine(socket_dir: Path, voices: Voices, asr_model: Path, vad_model: Path) -> Iterator[EngineProcess]:
    options = {"vad_model": str(vad_model), "spk_model": str(demo_model("demo-spk")), "threads": 1}
    with running("asr", socket_dir, str(asr_model), options=options, media=voices.folder) as engine:
        yield engine


def sound(voices: Voices, talk: tuple[tuple[str, tuple[int, int]], ...]) -> bytes:
    """The phrases one after another; each is a file of its own, with its silences."""
    parts = []
    for phrase, (voice, pitch) in talk:
        voices.say(f"{phrase}-{voice}-{pitch}.wav", phrase, voice=voice, pitch=pitch)
        parts.append(voices.samples(f"{phrase}-{voice}-{pitch}.wav") + bytes(20_000))
    return b"".join(parts)


@pytest.fixture(scope="module")
def talk(voices: Voices) -> str:
    return voices.wav("talk.wav", sound(voices, TALK))


def ask(engine: EngineProcess, url: str, **more: Any) -> httpx2.Response:
    response = engine.post(PATH, {"file": url, "response_format": "verbose_json", **more})
    assert response.status_code == 200, response.text
    return response


def test_two_who_take_turns(engine: EngineProcess, talk: str) -> None:
    segments = ask(engine, talk, diarize=True).json()["segments"]
    assert [each["speaker"] for each in segments] == ["spk0", "spk1"] * 3


def test_a_long_talk_is_grouped_as_a_short_one(engine: EngineProcess, voices: Voices) -> None:
    url = voices.wav("long-talk.wav", sound(voices, TALK) * 8)
    segments = ask(engine, url, speakers=True).json()["segments"]
    assert [each["speaker"] for each in segments] == ["spk0", "spk1"] * 24


def test_one_alone_and_three(engine: EngineProcess, voices: Voices) -> None:
    alone = voices.wav("alone.wav", sound(voices, TALK[::2]))
    assert {each["speaker"] for each in ask(engine, alone, diarize=True).json()["segments"]} == {"spk0"}
    three = (*TALK[:2], ("tea", HIGH), ("tea", LOW), ("tea", HIGH))
    segments = ask(engine, voices.wav("three.wav", sound(voices, three)), diarize=True).json()["segments"]
    assert [each["speaker"] for each in segments] == ["spk0", "spk1", "spk2", "spk0", "spk2"]


def test_diarized_json_is_openais(engine: EngineProcess, voices: Voices, talk: str) -> None:
    body = ask(engine, talk, response_format="diarized_json", chunking_strategy="auto").json()
    plain = ask(engine, talk).json()
    assert (body["task"], body["text"], body["duration"]) == ("transcribe", plain["text"], plain["duration"])
    assert body["usage"] == plain["usage"]
    assert set(body) == {"task", "text", "duration", "segments", "usage", "model"}
    for place, (segment, other) in enumerate(zip(body["segments"], plain["segments"], strict=True)):
        assert segment == {
            "type": "transcript.text.segment",
            "id": f"seg_{place}",
            "start": other["start"],
            "end": other["end"],
            "text": other["text"],
            "speaker": f"spk{place % 2}",
        }
    *_, last = stream(engine, talk, response_format="diarized_json")
    assert last["response"] == body


def test_subtitles_and_files_name_the_speakers(engine: EngineProcess, talk: str) -> None:
    assert "\nspk1: Where is the next train?\n" in ask(engine, talk, response_format="srt", diarize=True).text
    response = engine.post(PATH, {"files": [{"file": talk}], "diarize": True})
    assert [each["speaker"] for each in response.json()["data"][0]["segments"]] == ["spk0", "spk1"] * 3


def test_without_asking_nobody_is_named(engine: EngineProcess, talk: str) -> None:
    assert "speaker" not in ask(engine, talk).json()["segments"][0]


def test_silence_has_no_speaker(engine: EngineProcess, voices: Voices) -> None:
    body = ask(engine, voices.wav("still.wav", bytes(64_000)), response_format="diarized_json").json()
    assert (body["segments"], body["text"]) == ([], "")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"diarize": True}, "diarize"),
        ({"speakers": True, "response_format": "text"}, "speakers"),
        ({"diarize": False, "response_format": "diarized_json"}, "diarize"),
        (
            {"response_format": "diarized_json", "timestamp_granularities": ["word"]},
            "timestamp_granularities",
        ),
        ({"known_speaker_names": ["Ada"], "response_format": "diarized_json"}, "known_speaker_names"),
    ],
)
def test_what_makes_no_sense_is_refused(
    engine: EngineProcess, talk: str, body: dict[str, Any], param: str
) -> None:
    response = engine.post(PATH, {"file": talk, **body})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"diarize": True, "response_format": "verbose_json"}, "diarize"),
        ({"speakers": True}, "speakers"),
        ({"response_format": "diarized_json"}, "response_format"),
    ],
)
def test_without_a_speaker_model_it_is_refused(
    asr: EngineProcess, talk: str, body: dict[str, Any], param: str
) -> None:
    response = asr.post(PATH, {"file": talk, **body})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, "unsupported_parameter")
    assert "spk_model" in error["message"]


def test_a_model_that_knows_no_speakers_fails_the_load(
    socket_dir: Path, asr_model: Path, vad_model: Path
) -> None:
    with spawn("asr", socket_dir, str(asr_model), options={"spk_model": str(vad_model)}) as engine:
        assert engine.process.wait(90) == 3
        assert engine.process.stderr is not None
        assert "not a CAMPPlus" in engine.process.stderr.read()


GROUPED = """
import json, time
import numpy as np
from workers.engines.recognition import clusters

clusters.MANY = 300
made = np.random.default_rng(3)
centres = made.standard_normal((3, 64))
found = {}
for count in (1, 2, 15, 100, 1000):
    who = made.integers(0, 3, count)
    said = centres[who] + 0.4 * made.standard_normal((count, 64))
    found[count] = [who.tolist(), *(clusters.cluster(said.copy()).tolist() for _ in range(2))]
print(json.dumps(found))
"""


def test_groups_of_any_number_of_pieces() -> None:
    """Also of more than are looked at together; and always the same."""
    for who, labels, again in told(GROUPED).values():
        assert labels == again
        pairs = set(zip(who, labels, strict=True))
        assert len(pairs) == len(set(who)) == len(set(labels))
