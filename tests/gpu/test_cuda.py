"""The engines on an NVIDIA device: they answer, hold their weights there, and answer as the processor does."""

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from inferq.testing import RunningEngine, served
from tests.engines.process import demo_model, engines_python
from workers import adapters

CHAT = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
PICTURE = {"prompt": "a red house", "size": "64x64", "steps": 20, "seed": 7}
CASES: dict[str, tuple[adapters.OwnServer, str, str, dict[str, Any]]] = {
    "text": (adapters.TEXT, "demo-chat", "/v1/chat/completions", CHAT),
    "vision": (adapters.VISION, "demo-vision", "/v1/chat/completions", CHAT),
    "embed": (adapters.EMBED, "demo-embed", "/v1/embeddings", {"input": "hello"}),
    "rerank": (adapters.RERANK, "demo-rerank", "/v1/rerank", {"query": "a", "documents": ["a", "b"]}),
    "image": (adapters.IMAGE, "demo-image", "/v1/images/generations", PICTURE),
    "video": (adapters.VIDEO, "demo-video", "/v1/video/generations", {"prompt": "a cat", "steps": 3}),
}


@contextmanager
def engine(name: str, device: str, **options: Any) -> Iterator[RunningEngine]:
    server, model, _, _ = CASES[name]
    python = Path(engines_python())
    with served(
        server, source=str(demo_model(model)), device=device, python=python, options=options
    ) as found:
        yield found


@pytest.mark.parametrize("name", CASES)
def test_it_answers_from_the_device(name: str) -> None:
    _, _, path, body = CASES[name]
    with engine(name, "cuda:0") as found:
        response = found.post(path, body)
        assert response.status_code == 200, response.text
        assert found.health()["device_bytes"] > 0


def test_embeddings_are_those_of_the_processor() -> None:
    vectors = []
    for device in ("cpu", "cuda:0"):
        with engine("embed", device) as found:
            vectors.append(found.post("/v1/embeddings", {"input": "it rains"}).json()["data"][0]["embedding"])
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-3)


def test_a_picture_is_nearly_that_of_the_processor() -> None:
    from PIL import Image

    pictures = []
    for device in ("cpu", "cuda:0"):
        with engine("image", device, dtype="float32") as found:
            answer = found.post("/v1/images/generations", PICTURE).json()
        data = base64.b64decode(answer["data"][0]["b64_json"])
        pictures.append(list(Image.open(io.BytesIO(data)).convert("L").getdata()))
    differences = [abs(one - other) for one, other in zip(*pictures, strict=True)]
    assert sum(differences) / len(differences) < 4


def test_eight_pictures_at_once_are_faster_than_one_by_one() -> None:
    """The figure is printed; on a device the gain is what batches are for."""
    with engine("image", "cuda:0") as found:

        def paint(seed: int) -> None:
            assert found.post("/v1/images/generations", {**PICTURE, "seed": seed}).status_code == 200

        paint(0)
        began = perf_counter()
        for seed in range(8):
            paint(seed)
        alone = perf_counter() - began
        began = perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(paint, range(8)))
        print(f"8 pictures at once: {alone / (perf_counter() - began):.2f} times as fast as one by one")
        assert found.health()["batches"] < found.health()["items"]
