"""One real stack for the calls of the user manual: an engine of each kind, under the manual's names."""

import base64
import io
import random
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.e2e.conftest import sections, stack_of
from tests.e2e.manual import gallery
from tests.e2e.manual.gallery import Gallery
from tests.e2e.manual.names import (
    CHAT,
    CODER,
    EDGES,
    EMBEDDER,
    FILLER,
    FILMER,
    LARGER_CHAT,
    LISTENER,
    PAINTER,
    RERANKER,
    SPEAKER,
    VISION,
)
from tests.e2e.stack import Stack
from tests.engines.process import MODELS, demo_model, engines_python
from tests.engines.voices import Voices

MAX_QUEUE = 8
ENGINES = ("text", "vision", "embed", "rerank", "image", "video", "asr", "speech")


def models() -> dict[str, Any]:
    """Only the chat model is there from the start; the others come when they are called for.

    One slot each: a job that runs makes the next one wait.
    """

    def demo(name: str, kind: str, **more: Any) -> dict[str, Any]:
        engine = "text" if name == "chat" else name
        return {"engine": engine, "type": kind, "source": folder(name), "slots": 1, **more}

    def folder(name: str) -> str:
        return str(demo_model(f"demo-{name}"))

    paints = {"controlnets": {EDGES: folder("controlnet")}, "guidance": 2.0}
    listens = {"vad_model": folder("vad"), "punc_model": folder("punc")}
    speaks = {"engine": "speech", "source": "espeak", "type": "tts", "slots": 1}
    names = [CHAT, LARGER_CHAT, CODER, FILLER]
    return {
        "demo-chat": demo("chat", "chat", warm=True, context=2048, aliases=names, fim="qwen"),
        VISION: demo("vision", "chat", context=1024),
        PAINTER: demo("image", "image", options=paints, limits={"pixels": 65_536, "steps": 150}),
        SPEAKER: speaks | {"limits": {"characters": 200_000}},
        LISTENER: demo("asr", "asr", options=listens, limits={"seconds": 1800}),
        EMBEDDER: demo("embed", "embedding", context=128),
        RERANKER: demo("rerank", "rerank", limits={"documents": 20_000}),
        FILMER: demo("video", "video", limits={"duration": 6, "steps": 1000}),
    }


def tree() -> dict[str, Any]:
    common = sections()
    one_core = {"python": engines_python(), "env": {"OMP_NUM_THREADS": "1"}}
    return common | {
        "queue": common["queue"] | {"max_queue_size": MAX_QUEUE},
        "api": {"wait_timeout": 120},
        "media": {"fetch": "listed", "allow_hosts": [gallery.HOST]},
        "engines": dict.fromkeys(ENGINES, one_core),
        "models": models(),
    }


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """A web server of a caller, which the stack may fetch from."""
    with gallery.opened(tmp_path_factory.mktemp("gallery")) as opened:
        yield opened


@pytest.fixture(scope="session")
def manual_stack(pictures: Gallery) -> Iterator[Stack]:
    """The stack. The models that are not there are called for at once: they load while the tests go on."""
    trusted = {"SSL_CERT_FILE": str(pictures.certificate)}
    with (
        tempfile.TemporaryDirectory(prefix="iq-e2e-") as name,
        stack_of(tree(), Path(name), trusted) as stack,
    ):
        stack.until_ready("demo-chat")
        for model, body in KNOCKS.items():
            accepted = stack.post("/v1/jobs", {"model": model, "body": body})
            assert accepted.status_code == 202, accepted.text
        yield stack


def recording(seconds: int, *, noise: bool = False) -> str:
    """Silence, or a hiss that comes and goes each second, as a `data:` URL of few bytes a second."""
    rate = 2000
    loud, still = random.Random(1).randbytes(rate), bytes([128]) * rate
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(rate)
        file.writeframes(b"".join(loud if noise and second % 2 else still for second in range(seconds)))
    return f"data:audio/wav;base64,{base64.b64encode(content.getvalue()).decode()}"


KNOCKS: dict[str, Any] = {
    PAINTER: {"prompt": "red", "size": "64x64", "steps": 1},
    SPEAKER: {"input": "Hello."},
    LISTENER: {"file": recording(1)},
    EMBEDDER: {"input": "hello"},
    RERANKER: {"query": "hello", "documents": ["hello"]},
    VISION: {"messages": [{"role": "user", "content": "Say hello."}]},
    FILMER: {"prompt": "a red cat", "duration": 1, "resolution": "64x64", "steps": 1},
}


@pytest.fixture
def stack(manual_stack: Stack) -> Stack:
    return manual_stack


@pytest.fixture
def client(manual_stack: Stack) -> Iterator[openai.OpenAI]:
    """OpenAI's client as the manual makes it."""
    with manual_stack.openai(base_url=f"{manual_stack.url}/openai/v1", timeout=120) as made:
        yield made


@pytest.fixture
def http(manual_stack: Stack) -> Iterator[httpx2.Client]:
    """Plain calls below the manual's base URL."""
    headers = {"Authorization": f"Bearer {manual_stack.key}"}
    with httpx2.Client(base_url=f"{manual_stack.url}/openai/v1/", headers=headers, timeout=120) as made:
        yield made


@pytest.fixture(scope="session")
def voices(manual_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Voices:
    """Recordings of the phrases that the demo recogniser knows."""
    made = Voices(tmp_path_factory.mktemp("voices"), MODELS / "demo-asr")
    made.say("tea.wav", "tea")
    made.say("mixed.wav", "cat", "weather", "train")
    return made
