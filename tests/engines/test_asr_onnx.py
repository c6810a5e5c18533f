"""SenseVoice as ONNX, whole and quantised: the same answers as from torch."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import EngineProcess, demo_model, running, spawn
from tests.engines.voices import Voices

# Making the models takes a minute, the first time.
pytestmark = pytest.mark.timeout(400)
PATH = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def model() -> Path:
    return demo_model("demo-asr-onnx")


@pytest.fixture(scope="module", params=["whole", "quantised"])
def onnx(
    request: pytest.FixtureRequest, socket_dir: Path, voices: Voices, vad_model: Path, model: Path
) -> Iterator[EngineProcess]:
    options = {"vad_model": str(vad_model), "threads": 1, "quantised": request.param == "quantised"}
    with running("asr", socket_dir, str(model), options=options, media=voices.folder) as engine:
        yield engine


def heard(engine: EngineProcess, url: str, **more: Any) -> dict[str, Any]:
    body = {"file": url, "response_format": "verbose_json", "tags": True, **more}
    response = engine.post(PATH, {**body, "timestamp_granularities": ["segment", "word"]})
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.mark.parametrize("itn", [True, False])
@pytest.mark.parametrize("voice", [0, 2])
def test_what_torch_hears(
    request: pytest.FixtureRequest,
    onnx: EngineProcess,
    asr: EngineProcess,
    voices: Voices,
    itn: bool,
    voice: int,
) -> None:
    # In 8 bits the rows of a run share the scale of their numbers, so these depend on the company.
    near = 0.02 if request.node.callspec.params["onnx"] == "whole" else 0.5
    url = voices.say(f"everything-{voice}.wav", *voices.phrases, gap=1.0, voice=voice)
    ours, theirs = (heard(engine, url, itn=itn) for engine in (onnx, asr))
    assert [each["text"] for each in ours["segments"]] == [
        phrase["written" if itn else "plain"] for phrase in voices.phrases.values()
    ]
    for name in ("text", "language", "duration"):
        assert ours[name] == theirs[name]
    for one, other in zip(ours["words"], theirs["words"], strict=True):
        # In 8 bits a frame at the edge of a word may fall to the other side.
        assert one["word"] == other["word"]
        assert one["start"] == pytest.approx(other["start"], abs=0.07)
    for one, other in zip(ours["segments"], theirs["segments"], strict=True):
        for name in ("start", "end", "tokens", "language", "emotion", "event"):
            assert one[name] == other[name]
        assert one["avg_logprob"] == pytest.approx(other["avg_logprob"], abs=near)


def test_a_language_that_is_given(onnx: EngineProcess, voices: Voices) -> None:
    body = heard(onnx, voices.say("tea.wav", "tea"), language="en")
    assert (body["text"], body["language"]) == (voices.phrases["tea"]["written"], "english")


def last_words(model: Path, socket_dir: Path, options: dict[str, Any] | None = None) -> str:
    with spawn("asr", socket_dir, str(model), options=options) as engine:
        assert engine.process.wait(90) == 3
        assert engine.process.stderr is not None
        return engine.process.stderr.read().splitlines()[-1]


def test_a_graph_that_is_missing_or_no_sensevoice_fails_the_load(
    model: Path, asr_model: Path, socket_dir: Path, tmp_path: Path
) -> None:
    assert "holds no model_quant.onnx" in last_words(asr_model, socket_dir, {"quantised": True})
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    content = (broken / "model.onnx").read_bytes()
    (broken / "model.onnx").write_bytes(content.replace(b"textnorm", b"textform"))
    assert "not a SenseVoice" in last_words(broken, socket_dir)
