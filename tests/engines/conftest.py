"""The engines, each started once for all tests of this folder."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import EngineProcess, demo_model, running


@dataclass
class Case:
    """One engine in the conformance suite: where it answers, and a body it answers with 200."""

    engine: EngineProcess
    path: str
    body: dict[str, Any]
    # A body that runs long enough to be left in the middle, and whether it can be streamed.
    long: dict[str, Any]
    streams: bool
    # The media type of a whole answer. Only JSON has a place for the model's name.
    media: str = "application/json"


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
def media_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="iq-media-") as name:
        yield Path(name)


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
def video(socket_dir: Path, media_dir: Path) -> Iterator[EngineProcess]:
    options = {"steps": 3, "threads": 1, "max_pixels": 96 * 96, "max_steps": 1000}
    with running(
        "video", socket_dir, str(demo_model("demo-video")), options=options, media=media_dir
    ) as engine:
        yield engine


@pytest.fixture(scope="session")
def vision(socket_dir: Path, media_dir: Path) -> Iterator[EngineProcess]:
    model = str(demo_model("demo-vision"))
    with running("vision", socket_dir, model, options={"threads": 1}, media=media_dir) as engine:
        yield engine


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(params=["noop", "text", "embed", "video", "vision"])
def case(request: pytest.FixtureRequest) -> Case:
    engine = request.getfixturevalue(request.param)
    if request.param == "embed":
        texts = ["a b c d e f g h " * 10] * 2000
        return Case(engine, "/v1/embeddings", {"input": "hello"}, {"input": texts}, streams=False)
    if request.param == "video":
        body = {"prompt": "a red cat", "duration": 1, "size": "64x64"}
        long = {"prompt": "a red cat", "steps": 1000}
        return Case(engine, "/v1/video/generations", body, long, streams=False, media="video/mp4")
    long = chat("!tokens=1000 !interval=0.05") if request.param == "noop" else chat("go on", ignore_eos=True)
    return Case(engine, "/v1/chat/completions", chat("Say hello."), long, streams=True)
