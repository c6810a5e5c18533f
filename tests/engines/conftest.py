"""The engines, each started once for all tests of this folder."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines.comfyui_bench import bench
from tests.engines.process import EngineProcess, demo_model, over_tcp, running


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
def speech(socket_dir: Path) -> Iterator[EngineProcess]:
    with running("speech", socket_dir, "espeak", options={"max_characters": 200_000}) as engine:
        yield engine


@pytest.fixture(scope="session")
def rerank_model() -> Path:
    return demo_model("demo-rerank")


@pytest.fixture(scope="session")
def rerank(socket_dir: Path, rerank_model: Path) -> Iterator[EngineProcess]:
    with running("rerank", socket_dir, str(rerank_model)) as engine:
        yield engine


@pytest.fixture(scope="session")
def remote(socket_dir: Path) -> Iterator[EngineProcess]:
    """In front of another engine, which so stands for an upstream that knows what it may refuse."""
    with over_tcp("noop", "their-name") as url:
        options = {"url": f"{url}/v1", "remote_model": "their-name"}
        with running("remote", socket_dir, options=options) as engine:
            yield engine


@pytest.fixture(scope="session")
def media_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="iq-media-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def video(socket_dir: Path, media_dir: Path) -> Iterator[EngineProcess]:
    options = {"steps": 3, "threads": 1, "max_pixels": 96 * 96, "max_steps": 1000}
    model = str(demo_model("demo-video"))
    with running("video", socket_dir, model, options=options, media=media_dir) as engine:
        yield engine


@pytest.fixture(scope="session")
def vision(socket_dir: Path, media_dir: Path) -> Iterator[EngineProcess]:
    model = str(demo_model("demo-vision"))
    with running("vision", socket_dir, model, options={"threads": 1}, media=media_dir) as engine:
        yield engine


@pytest.fixture(scope="session")
def comfyui(socket_dir: Path) -> Iterator[EngineProcess]:
    with bench() as comfy, running("comfyui", socket_dir, options=comfy.options()) as engine:
        yield engine


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def talks(engine: EngineProcess) -> Case:
    return Case(engine, CHAT, chat("Say hello."), chat("!tokens=1000 !interval=0.05"), streams=True)


def generates(engine: EngineProcess) -> Case:
    return Case(engine, CHAT, chat("Say hello."), chat("go on", ignore_eos=True), streams=True)


def embeds(engine: EngineProcess) -> Case:
    texts = [f"{number} " + "a b c d e f g h " * 10 for number in range(2000)]
    return Case(engine, "/v1/embeddings", {"input": "hello"}, {"input": texts}, streams=False)


def reranks(engine: EngineProcess) -> Case:
    documents = [f"{number} a b c d e f g h " * 6 for number in range(1000)]
    long = {"query": "a b c", "documents": documents}
    return Case(engine, "/v1/rerank", {"query": "a", "documents": ["a", "b"]}, long, streams=False)


def speaks(engine: EngineProcess) -> Case:
    long = {"input": "This is one of many sentences. " * 5000, "response_format": "wav"}
    return Case(
        engine, "/v1/audio/speech", {"input": "Hello there."}, long, streams=False, media="audio/mpeg"
    )


def films(engine: EngineProcess) -> Case:
    body = {"prompt": "a red cat", "duration": 1, "size": "64x64"}
    long = {"prompt": "a red cat", "steps": 1000}
    return Case(engine, "/v1/video/generations", body, long, streams=False, media="video/mp4")


def paints(engine: EngineProcess) -> Case:
    body = {"prompt": "a lighthouse", "size": "64x64", "steps": 2}
    long = body | {"steps": 150, "partial_images": 3}
    return Case(engine, "/v1/images/generations", body, long, streams=True)


CHAT = "/v1/chat/completions"
CASES: dict[str, Callable[[EngineProcess], Case]] = {
    "noop": talks,
    "text": generates,
    "embed": embeds,
    "rerank": reranks,
    "remote": talks,
    "speech": speaks,
    "video": films,
    "vision": generates,
    "comfyui": paints,
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param](request.getfixturevalue(request.param))
