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
def image_media(socket_dir: Path) -> Path:
    """The folder that the image engine reads its input files from."""
    folder = socket_dir / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def image(socket_dir: Path, image_media: Path) -> Iterator[EngineProcess]:
    options = {"controlnets": {"edges": str(demo_model("demo-controlnet"))}, "guidance": 2.0, "steps": 10}
    model = str(demo_model("demo-image"))
    with running("image", socket_dir, model, options=options, slots=16, media=image_media) as engine:
        yield engine


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(params=["noop", "text", "embed", "image"])
def case(request: pytest.FixtureRequest) -> Case:
    engine = request.getfixturevalue(request.param)
    if request.param == "embed":
        texts = ["a b c d e f g h " * 10] * 2000
        return Case(engine, "/v1/embeddings", {"input": "hello"}, {"input": texts}, streams=False)
    if request.param == "image":
        long = {"prompt": "red", "size": "192x192", "steps": 150, "partial_images": 3}
        return Case(engine, "/v1/images/generations", {"prompt": "red", "steps": 2}, long, streams=True)
    long = chat("!tokens=1000 !interval=0.05") if request.param == "noop" else chat("go on", ignore_eos=True)
    return Case(engine, "/v1/chat/completions", chat("Say hello."), long, streams=True)
