"""The engines, each started once for all tests of this folder."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import EngineProcess, demo_model, running
from tests.engines.voices import Voices


@dataclass
class Case:
    """One engine in the conformance suite: where it answers, and a body it answers with 200."""

    engine: EngineProcess
    path: str
    body: dict[str, Any]
    # A body that runs long enough to be left in the middle, and whether it can be streamed.
    long: dict[str, Any]
    streams: bool


@pytest.fixture(scope="session")
def socket_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="iq-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def chat_model() -> Path:
    return demo_model("demo-chat")


@pytest.fixture(scope="session")
def embed_model() -> Path:
    return demo_model("demo-embed")


@pytest.fixture(scope="session")
def noop(socket_dir: Path) -> Iterator[EngineProcess]:
    with running("noop", socket_dir) as engine:
        yield engine


@pytest.fixture(scope="session")
def text(socket_dir: Path, chat_model: Path) -> Iterator[EngineProcess]:
    with running("text", socket_dir, str(chat_model), slots=8) as engine:
        yield engine


@pytest.fixture(scope="session")
def embed(socket_dir: Path, embed_model: Path) -> Iterator[EngineProcess]:
    with running("embed", socket_dir, str(embed_model)) as engine:
        yield engine


@pytest.fixture(scope="session")
def asr_model() -> Path:
    return demo_model("demo-asr")


@pytest.fixture(scope="session")
def vad_model() -> Path:
    return demo_model("demo-vad")


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory, asr_model: Path) -> Voices:
    """The folder of media that the speech recognition engine may read, with some speech in it."""
    made = Voices(tmp_path_factory.mktemp("voices"), asr_model)
    made.say("hello.wav", "hello")
    made.hour("hour.wav", "hello.wav")
    return made


@pytest.fixture(scope="session")
def asr(socket_dir: Path, voices: Voices, asr_model: Path, vad_model: Path) -> Iterator[EngineProcess]:
    options = {"vad_model": str(vad_model), "threads": 1}
    with running("asr", socket_dir, str(asr_model), options=options, media=voices.folder) as engine:
        yield engine


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(params=["noop", "text", "embed", "asr"])
def case(request: pytest.FixtureRequest) -> Case:
    engine = request.getfixturevalue(request.param)
    if request.param == "asr":
        voices: Voices = request.getfixturevalue("voices")
        body, long = ({"file": voices.url(name)} for name in ("hello.wav", "hour.wav"))
        return Case(engine, "/v1/audio/transcriptions", body, long, streams=True)
    if request.param == "embed":
        texts = ["a b c d e f g h " * 10] * 2000
        return Case(engine, "/v1/embeddings", {"input": "hello"}, {"input": texts}, streams=False)
    long = chat("!tokens=1000 !interval=0.05") if request.param == "noop" else chat("go on", ignore_eos=True)
    return Case(engine, "/v1/chat/completions", chat("Say hello."), long, streams=True)
