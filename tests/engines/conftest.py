"""The engines, each started once for all tests of this folder."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inferq.testing import Case
from tests.engines import hub as hubs
from tests.engines.comfyui_bench import bench
from tests.engines.process import ROOT, EngineProcess, demo_model, over_tcp, running
from tests.engines.voices import Voices


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
def pull(socket_dir: Path) -> Iterator[EngineProcess]:
    with hubs.serving({"acme/slow": {"big.bin": bytes(2**22)}}) as hub:
        hub.pause_s = 0.2
        options = {"huggingface": hub.url, "reserve_bytes": 0}
        with running("pull", socket_dir, str(socket_dir / "models"), options=options) as engine:
            yield engine


@pytest.fixture(scope="session")
def image_media(media_dir: Path) -> Path:
    """The folder that the image engine reads its input files from."""
    return media_dir


@pytest.fixture(scope="session")
def image(socket_dir: Path, image_media: Path) -> Iterator[EngineProcess]:
    options = {"controlnets": {"edges": str(demo_model("demo-controlnet"))}, "guidance": 2.0, "steps": 10}
    model = str(demo_model("demo-image"))
    with running("image", socket_dir, model, options=options, slots=16, media=image_media) as engine:
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


def pulls(engine: EngineProcess) -> Case:
    """A folder that is there, and a hub that takes its time."""
    body = {"source": str(ROOT / "examples")}
    return Case(engine, "/v1/models/pull", body, {"source": "acme/slow"}, streams=False)


def paints(engine: EngineProcess) -> Case:
    long = {"prompt": "red", "size": "192x192", "steps": 150, "partial_images": 3}
    return Case(engine, "/v1/images/generations", {"prompt": "red", "steps": 2}, long, streams=True)


def listens(engine: EngineProcess, voices: Voices) -> Case:
    body, long = ({"file": voices.url(name)} for name in ("hello.wav", "hour.wav"))
    return Case(engine, "/v1/audio/transcriptions", body, long, streams=True)


CHAT = "/v1/chat/completions"
CASES: dict[str, Callable[[EngineProcess], Case]] = {
    "noop": talks,
    "text": generates,
    "embed": embeds,
    "rerank": reranks,
    "remote": talks,
    "speech": speaks,
    "image": paints,
    "video": films,
    "vision": generates,
    "pull": pulls,
    "comfyui": paints,
}


@pytest.fixture(params=[*CASES, "asr"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "asr":
        return listens(request.getfixturevalue("asr"), request.getfixturevalue("voices"))
    return CASES[request.param](request.getfixturevalue(request.param))
