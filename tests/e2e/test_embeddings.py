"""The embedding engine behind the whole stack."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.stack import Stack
from tests.engines.process import MODELS


@pytest.fixture
def client(model_stack: Stack) -> Iterator[openai.OpenAI]:
    with model_stack.openai() as made:
        yield made


def nearest(vectors: list[list[float]], place: int) -> int:
    def likeness(other: int) -> float:
        return sum(a * b for a, b in zip(vectors[place], vectors[other], strict=True))

    return max((other for other in range(len(vectors)) if other != place), key=likeness)


def test_paraphrases_are_nearest(client: openai.OpenAI) -> None:
    meanings = json.loads((Path(MODELS) / "demo-embed" / "meanings.json").read_text("utf-8"))
    texts = [text for meaning in meanings for text in meaning]
    group = [number for number, meaning in enumerate(meanings) for _ in meaning]
    found = client.embeddings.create(model="demo-embed", input=texts)
    vectors = [entry.embedding for entry in found.data]
    assert all(group[nearest(vectors, place)] == group[place] for place in range(len(texts)))
    assert found.usage.prompt_tokens > len(texts)


def test_base64_and_floats_are_the_same_numbers(client: openai.OpenAI, model_stack: Stack) -> None:
    plain = client.embeddings.create(model="demo-embed", input="a sentence", encoding_format="float")
    packed = client.embeddings.create(model="demo-embed", input="a sentence")
    raw = model_stack.post("/v1/embeddings", {"model": "demo-embed", "input": "a sentence"})
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert raw.json()["data"][0]["embedding"] == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_an_embedding_as_a_long_job(model_stack: Stack) -> None:
    accepted = model_stack.post("/v1/jobs", {"model": "demo-embed", "input": "a sentence"})
    assert (accepted.status_code, accepted.json()["endpoint"]) == (202, "embeddings")
    job = model_stack.ended(accepted.json()["id"])
    assert len(job["result"]["data"][0]["embedding"]) > 8


def test_the_same_question_is_answered_from_the_cache(model_stack: Stack) -> None:
    """The replica's report of its load is what makes an answer findable again."""
    body = {"model": "demo-embed", "input": f"asked twice {time.time()}"}
    first, again = (model_stack.post("/v1/embeddings", body) for _ in range(2))
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
    assert again.content == first.content
