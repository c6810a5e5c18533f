"""Other recognisers, punctuation, and folders that are not what they say."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import ENVIRONMENT, ROOT, EngineProcess, demo_model, engines_python, running, spawn
from tests.engines.test_asr import bare, loud_parts, stream
from tests.engines.voices import Voices

pytestmark = pytest.mark.timeout(500)
PATH = "/v1/audio/transcriptions"
SAID = ("hello", "train", "nihao", "three", "tea")


@pytest.fixture(scope="module")
def punctuated(socket_dir: Path, voices: Voices, vad_model: Path) -> EngineProcess:
    """A Paraformer with a detector and a punctuation model."""
    options = {"vad_model": str(vad_model), "punc_model": str(demo_model("demo-punc")), "threads": 1}
    model = str(demo_model("demo-paraformer"))
    with running("asr", socket_dir, model, options=options, media=voices.folder) as engine:
        yield engine


def ask(engine: EngineProcess, url: str, **more: Any) -> dict[str, Any]:
    response = engine.post(PATH, {"file": url, **more})
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_a_paraformer_with_punctuation(punctuated: EngineProcess, voices: Voices) -> None:
    url = voices.say("said.wav", *SAID)
    body = ask(punctuated, url, response_format="verbose_json", timestamp_granularities=["segment", "word"])
    assert [each["text"] for each in body["segments"]] == [
        "Hello world.",
        "Where is the next train?",
        "你好，世界。",
        "我们三点见面。",
        "She drinks green tea every morning.",
    ]
    assert bare(body["text"]) == bare("".join(each["text"] for each in body["segments"]))
    assert bare("".join(word["word"] for word in body["words"])) == voices.plain(*SAID)
    for segment, (start, end) in zip(body["segments"], loud_parts(voices.samples("said.wav")), strict=True):
        assert (segment["start"], segment["end"]) == (
            pytest.approx(start, abs=0.2),
            pytest.approx(end, abs=0.2),
        )
        assert segment["avg_logprob"] is None


def test_punctuation_can_be_left_out(punctuated: EngineProcess, voices: Voices) -> None:
    body = ask(punctuated, voices.say("said.wav", *SAID), punctuation=False)
    assert bare(body["text"]) == voices.plain(*SAID)


def test_a_stream_is_punctuated_as_the_whole_is(punctuated: EngineProcess, voices: Voices) -> None:
    url = voices.wav("said-long.wav", voices.samples("said.wav") * 12)
    *deltas, last = stream(punctuated, url)
    assert len(deltas) > 2
    assert "".join(each["delta"] for each in deltas) == last["text"]
    assert last["text"] == ask(punctuated, url)["text"]
    assert bare(last["text"]).count("你好，世界。我们三点见面。") == 12


COMPARE = """
import json, sys
from pathlib import Path
from workers.engines.recognition.folders import load_folder
from workers.engines.recognition.punctuate import Punctuator, surface
loaded = load_folder(sys.argv[1], "cpu", 1)
found = []
for text in json.loads(sys.argv[2]):
    results, _ = loaded.model.inference([text], key=["k"], tokenizer=loaded.tokenizer, **loaded.settings)
    session = Punctuator(loaded, "cpu").session()
    units = [unit for place, part in enumerate(text.split("|")) for unit in session.feed(part, place)]
    found.append([results[0]["text"].strip(), surface(units + session.finish())])
print(json.dumps(found))
"""


def test_punctuating_piece_by_piece_is_funasrs_punctuation(voices: Voices) -> None:
    """Also where the text is longer than the groups that the model reads, and where it is made of unknown words."""
    chosen = [list(voices.phrases)[place % 12] for place in range(40)]
    texts = [
        " ".join(voices.phrases[name]["plain"] for name in chosen),
        " ".join(voices.phrases[name]["plain"] for name in SAID),
        "hello",
        "something quite unknown " * 90,
        "未知" * 130,
    ]
    argv = [engines_python(), "-c", COMPARE, str(demo_model("demo-punc")), json.dumps(texts)]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    for theirs, ours in json.loads(done.stdout.splitlines()[-1]):
        assert bare(theirs) == bare(ours)


def copied(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    return folder


def last_words(model: Path, socket_dir: Path, options: dict[str, Any] | None = None) -> str:
    """What an engine says that cannot load its model."""
    with spawn("asr", socket_dir, str(model), options=options) as engine:
        assert engine.process.wait(90) == 3
        assert engine.process.stderr is not None
        return engine.process.stderr.read().splitlines()[-1]


def test_weights_that_do_not_fit_fail_the_load(asr_model: Path, socket_dir: Path, tmp_path: Path) -> None:
    """FunASR only logs them, and answers with random weights."""
    broken = copied(asr_model, tmp_path / "broken")
    config = (broken / "config.yaml").read_text("utf-8")
    (broken / "config.yaml").write_text(config.replace("linear_units: 256", "linear_units: 128"), "utf-8")
    assert "lacks" in last_words(broken, socket_dir)


def test_a_folder_that_is_no_model(socket_dir: Path, tmp_path: Path) -> None:
    assert "has no config.yaml" in last_words(tmp_path, socket_dir)


def test_an_onnx_model_alone_is_refused(socket_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "model_quant.onnx").write_bytes(b"x")
    assert "ONNX" in last_words(tmp_path, socket_dir)


def test_a_recogniser_is_no_detector(asr_model: Path, socket_dir: Path) -> None:
    words = last_words(asr_model, socket_dir, {"vad_model": str(asr_model)})
    assert "does not detect speech" in words
