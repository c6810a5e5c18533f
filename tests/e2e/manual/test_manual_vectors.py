"""The manual's calls for vectors and order, compared with what the libraries themselves answer."""

import base64
from array import array
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.e2e.manual.names import EMBEDDER, RERANKER
from tests.engines.process import MODELS, library

TEXTS = ["沙发上有一只睡着的猫。", "Tomorrow the weather will be wet."]
CLOSE = 1e-5


def answered(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.fixture(scope="session")
def wanted() -> list[list[float]]:
    """The library's vectors of TEXTS."""
    return list(library("encode", Path(MODELS) / "demo-embed", {"texts": TEXTS}))


def test_vectors_of_two_texts(http: httpx2.Client, wanted: list[list[float]]) -> None:
    found = answered(http.post("embeddings", json={"model": EMBEDDER, "input": TEXTS}))
    assert [entry["index"] for entry in found["data"]] == [0, 1]
    assert [len(entry["embedding"]) for entry in found["data"]] == [64, 64]
    for entry, vector in zip(found["data"], wanted, strict=True):
        assert entry["embedding"] == pytest.approx(vector, abs=CLOSE)


def test_vectors_of_a_list_with_one_text(http: httpx2.Client, wanted: list[list[float]]) -> None:
    found = answered(http.post("embeddings", json={"model": EMBEDDER, "input": TEXTS[1:]}))
    assert found["data"][0]["embedding"] == pytest.approx(wanted[1], abs=CLOSE)


def test_vectors_in_either_encoding(
    client: openai.OpenAI, http: httpx2.Client, wanted: list[list[float]]
) -> None:
    """The client asks for base64 by itself; a plain call may."""
    by_client = client.embeddings.create(model=EMBEDDER, input=TEXTS[0])
    assert by_client.data[0].embedding == pytest.approx(wanted[0], abs=CLOSE)
    body = {"model": EMBEDDER, "input": TEXTS[0], "encoding_format": "base64"}
    packed = answered(http.post("embeddings", json=body))["data"][0]["embedding"]
    assert list(array("f", base64.b64decode(packed))) == pytest.approx(wanted[0], abs=CLOSE)


def test_a_batch_of_texts_is_the_same_as_each_alone(http: httpx2.Client) -> None:
    batch = [f"{text} {number}" for number in range(20) for text in TEXTS]
    together = answered(http.post("embeddings", json={"model": EMBEDDER, "input": batch}))["data"]
    for place in (0, 17, 39):
        alone = answered(http.post("embeddings", json={"model": EMBEDDER, "input": batch[place]}))["data"][0]
        assert together[place]["embedding"] == pytest.approx(alone["embedding"], abs=CLOSE)


QUERY = "明天会下雨。"
DOCUMENTS = ["猫在沙发上睡觉。", "The moon is bright tonight.", "预计明天有雨。", "明天的天气是雨天。"]


def test_documents_in_order_of_their_worth(http: httpx2.Client) -> None:
    body = {"model": RERANKER, "query": QUERY, "documents": DOCUMENTS, "top_k": 3}
    results = answered(http.post("rerank", json=body))["results"]
    scores = library("predict", Path(MODELS) / "demo-rerank", [[QUERY, text] for text in DOCUMENTS])
    order = sorted(range(len(DOCUMENTS)), key=lambda place: -scores[place])[:3]
    assert [item["index"] for item in results] == order
    assert [item["document"] for item in results] == [DOCUMENTS[place] for place in order]
    assert [item["relevance_score"] for item in results] == pytest.approx(
        [scores[place] for place in order], abs=CLOSE
    )
    # What it means: the two about tomorrow's rain come first.
    assert set(order[:2]) == {2, 3}


def test_all_documents_when_no_number_is_given(http: httpx2.Client) -> None:
    body = {"model": RERANKER, "query": QUERY, "documents": DOCUMENTS}
    results = answered(http.post("rerank", json=body))["results"]
    assert sorted(item["index"] for item in results) == [0, 1, 2, 3]
    scores = [item["relevance_score"] for item in results]
    assert scores == sorted(scores, reverse=True)
