"""Kokoro's voices: the phonemes for them, and the network where its package is installed.

The network here has random weights, but every phoneme lasts 75 ms.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.heard import PATH, refused, wav
from tests.engines.process import EngineProcess, demo_model, engines_python, eventually, running, spawn
from workers.engines.voices.ipa import cut, kokoro_phonemes

SPOKEN = {
    ("The choice of boys", "en-us"): ["ðə t^ʃˈɔ^ɪs ʌv bˈɔ^ɪz"],
    (" Joe", "en-us"): ["d^ʒˈo^ʊ"],
    ("bird better", "en-us"): ["bˈɜːd bˈɛɾɚ"],
    ("bird", "en-gb"): ["bˈɜːd"],
    ("hola", "es"): ["ˈola"],
    ("3.14", "en-us"): ["θɹˈiː pɔ^ɪnt wˈʌn fˈɔːɹ"],
}


def installed() -> bool:
    program = "import importlib.util as u; raise SystemExit(u.find_spec('kokoro') is None)"
    return subprocess.run([engines_python(), "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("The choice of boys, Joe!", "en-us", "ðə ʧˈYs ʌv bˈYz, ʤˈO!"),
        ("bird better", "en-us", "bˈɜɹd bˈɛTəɹ"),
        ("bird", "en-gb", "bˈɜːd"),
        ("hola", "es", "ˈola"),
        ("3.14.", "en-us", "θɹˈi pYnt wˈʌn fˈɔɹ."),
        ("...", "en-us", "..."),
    ],
)
def test_phonemes_in_kokoros_alphabet(text: str, language: str, expected: str) -> None:
    assert kokoro_phonemes(text, language, lambda part, code, tie: SPOKEN[part, code]) == expected


def test_long_phonemes_are_cut_at_spaces() -> None:
    parts = cut("abcd " * 50, 22)
    assert set(parts[:-1]) == {"abcd abcd abcd abcd"}
    assert " ".join(parts) == ("abcd " * 50).strip()
    assert cut("x" * 50, 22) == ["x" * 22, "x" * 22, "x" * 6]


def test_a_missing_package_is_named(short_dir: Path) -> None:
    if installed():
        pytest.skip("kokoro is installed")
    (short_dir / "voices").mkdir()
    (short_dir / "config.json").write_text("{}")
    with spawn("speech", short_dir, str(short_dir)) as engine:
        words = engine.process.communicate(timeout=60)[1].strip().splitlines()[-1]
    assert engine.process.returncode == 3
    assert "pip install --no-deps kokoro" in words


@pytest.fixture(scope="module")
def kokoro(socket_dir: Path) -> Iterator[EngineProcess]:
    if not installed():
        pytest.skip("kokoro is not installed in the engines' environment")
    with running("speech", socket_dir, str(demo_model("demo-kokoro")), options={"threads": 1}) as engine:
        yield engine


def test_health_lists_the_voices_of_the_folder(kokoro: EngineProcess) -> None:
    health = kokoro.health()
    assert health["backend"] == "kokoro"
    assert health["voices"] == ["default", "af_heart", "am_echo", "bm_fable"]
    assert {"en-us", "en-gb", "fr-fr"} <= set(health["languages"])


@pytest.mark.slow
def test_lengths_follow_the_phonemes(kokoro: EngineProcess) -> None:
    """həlˈO has five signs, and the network adds one at either end."""
    assert wav(kokoro, "hello").seconds == pytest.approx(7 * 0.075, abs=0.01)
    long = wav(kokoro, "The quick brown fox jumps over the lazy dog.")
    assert 2 < long.seconds < 5
    assert long.loudness > 100
    fast = wav(kokoro, "The quick brown fox jumps over the lazy dog.", speed=1.5)
    assert fast.seconds == pytest.approx(long.seconds / 1.5, rel=0.02)


@pytest.mark.slow
def test_mandarin_is_spoken_where_its_front_end_is_installed(kokoro: EngineProcess) -> None:
    text = "今天天气很好。"
    if "cmn" in kokoro.health()["languages"]:
        assert 1 < wav(kokoro, text).seconds < 5
    else:
        assert refused(kokoro, {"input": text}) == (400, "input")


@pytest.mark.slow
def test_voices_of_the_folder_differ(kokoro: EngineProcess) -> None:
    loudness = {
        name: round(wav(kokoro, "hello", voice=name).loudness) for name in ("af_heart", "am_echo", "fable")
    }
    assert len(set(loudness.values())) == 3, loudness


@pytest.mark.slow
def test_a_caller_who_leaves_stops_the_network(kokoro: EngineProcess) -> None:
    """In the middle of a piece that takes seconds: the next request does not wait for its end."""
    wav(kokoro, "hi")
    with kokoro.sent(PATH, {"input": "word after word " * 18}, "left"):
        eventually(lambda: "left" in kokoro.running(), "running")
        time.sleep(1)
    eventually(lambda: "left" not in kokoro.running(), "released", 1.0)
    began = time.monotonic()
    wav(kokoro, "hi")
    assert time.monotonic() - began < 3
