"""The binding of espeak-ng, without an engine around it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.engines.heard import PATH, refused, wav
from tests.engines.process import ROOT, EngineProcess, engines_python, eventually, running

TEXT = "The quick brown fox jumps over the lazy dog."
PROGRAM = """
import json, sys
from workers.engines.espeak import Espeak, EspeakError

espeak = Espeak()
text = sys.argv[1]

def seconds(*args, **kwargs):
    samples, rate = espeak.synthesize(*args, **kwargs)
    assert str(samples.dtype) == "int16" and samples.ndim == 1
    return len(samples) / rate

def refused(*args):
    try:
        espeak.synthesize("hello", *args)
    except EspeakError:
        return True

calls = iter(range(1000))
print(json.dumps({
    "normal": seconds(text),
    "fast": seconds(text, rate=350),
    "stopped": seconds("word " * 500, stop=lambda: next(calls) > 5),
    "commands": [seconds("one \\x01450S two three four"), seconds("one  450S two three four")],
    "phonemes": espeak.phonemes("Hello, world!"),
    "tied": espeak.phonemes("choice", tie="^"),
    "mandarin": espeak.languages["cmn"].codes,
    "refused": [refused("xx"), refused("en-us", "f9"), refused("en-us", "../f1")],
}))
"""


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    argv = [engines_python(), "-c", PROGRAM, TEXT]
    shown = subprocess.run(
        argv, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True
    )
    return dict(json.loads(shown.stdout))


def test_the_rate_is_in_words_a_minute(facts: dict[str, Any]) -> None:
    assert facts["fast"] == pytest.approx(facts["normal"] / 2, rel=0.05)


def test_a_stop_ends_it_early(facts: dict[str, Any]) -> None:
    assert 0 < facts["stopped"] < 1


def test_control_characters_are_no_commands(facts: dict[str, Any]) -> None:
    """\\x01 with a number and a letter would change rate, pitch or voice."""
    commands, plain = facts["commands"]
    assert commands == pytest.approx(plain, rel=0.02)


def test_phonemes(facts: dict[str, Any]) -> None:
    assert facts["phonemes"] == ["həlˈoʊ", "wˈɜːld"]
    assert facts["tied"] == ["t^ʃˈɔ^ɪs"]


def test_languages_and_voices(facts: dict[str, Any]) -> None:
    assert "zh" in facts["mandarin"]
    assert facts["refused"] == [True, True, True]


def test_the_engine_keeps_the_length(facts: dict[str, Any], speech: EngineProcess) -> None:
    """From 22.05 kHz to 24 kHz."""
    assert wav(speech, TEXT).seconds == pytest.approx(facts["normal"], rel=0.02)


# The shortest text that was found to crash espeak-ng 1.52.
CRASH = {"input": ")-e", "language": "vi"}


def test_a_text_that_crashes_the_library_is_refused(speech: EngineProcess) -> None:
    for _ in range(2):
        assert refused(speech, CRASH) == (400, "input")
        assert wav(speech, "hello").loudness > 500


def test_a_library_that_was_killed_is_started_again(short_dir: Path) -> None:
    with running("speech", short_dir, "espeak") as engine:
        psutil.Process(engine.process.pid).children()[0].kill()
        eventually(lambda: engine.post(PATH, {"input": "hello"}).status_code == 200, "started again")


def test_the_library_does_not_outlive_its_engine(short_dir: Path) -> None:
    with running("speech", short_dir, "espeak") as engine:
        child = psutil.Process(engine.process.pid).children()[0]
        engine.process.kill()
        eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "ended")
