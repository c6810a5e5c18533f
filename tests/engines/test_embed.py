"""The embedding engine: meaning, forms, limits, and batches."""

import base64
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import EngineProcess, running

PATH = "/v1/embeddings"
Vector = list[float]


def vectors(engine: EngineProcess, value: Any, **more: Any) -> list[Vector]:
    response = engine.post(PATH, {"input": value, **more})
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [entry["index"] for entry in data] == list(range(len(data)))
    return [entry["embedding"] for entry in data]


def likeness(left: Vector, right: Vector) -> float:
    return sum(one * other for one, other in zip(left, right, strict=True))


@pytest.fixture(scope="module")
def meanings(embed_model: Path) -> list[list[str]]:
    return list(json.loads((embed_model / "meanings.json").read_text("utf-8")))


def test_paraphrases_are_nearest(embed: EngineProcess, meanings: list[list[str]]) -> None:
    texts = [text for meaning in meanings for text in meaning]
    group = [number for number, meaning in enumerate(meanings) for _ in meaning]
    found = vectors(embed, texts)
    for place, vector in enumerate(found):
        others = [other for other in range(len(texts)) if other != place]
        nearest = max(others, key=lambda other: likeness(vector, found[other]))
        assert group[nearest] == group[place], (texts[place], texts[nearest])


def test_an_input_alone_or_in_company_is_the_same(embed: EngineProcess, meanings: list[list[str]]) -> None:
    texts = [text for meaning in meanings for text in meaning]
    together = vectors(embed, texts)
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda text: vectors(embed, text)[0], texts))
    for one, other in zip(together, alone, strict=True):
        assert likeness(one, other) == pytest.approx(1, abs=1e-4)


def test_requests_that_arrive_together_share_runs(embed: EngineProcess) -> None:
    before = embed.health()
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda number: vectors(embed, f"text {number}"), range(128)))
    after = embed.health()
    assert after["items"] - before["items"] == 128
    assert after["batches"] - before["batches"] < 100


def test_base64_is_little_endian_floats(embed: EngineProcess) -> None:
    plain = vectors(embed, "The cat sleeps on the sofa.")[0]
    packed = base64.b64decode(str(vectors(embed, "The cat sleeps on the sofa.", encoding_format="base64")[0]))
    assert list(struct.unpack(f"<{len(plain)}f", packed)) == pytest.approx(plain, abs=1e-6)


def test_fewer_dimensions_have_length_one_again(embed: EngineProcess) -> None:
    whole = vectors(embed, "hello")[0]
    short = vectors(embed, "hello", dimensions=8)[0]
    assert len(short) == 8
    assert likeness(short, short) == pytest.approx(1, abs=1e-5)
    norm = likeness(whole[:8], whole[:8]) ** 0.5
    assert short == pytest.approx([value / norm for value in whole[:8]], abs=1e-5)
    assert vectors(embed, "hello", dimensions=len(whole))[0] == pytest.approx(whole)


def test_token_arrays_are_read(embed: EngineProcess) -> None:
    one = vectors(embed, [7, 8, 9])
    several = vectors(embed, [[7, 8, 9], [7, 8]])
    assert len(one) == 1
    assert several[0] == pytest.approx(one[0], abs=1e-4)
    assert likeness(several[0], several[1]) < 0.9999
    assert vectors(embed, [[2, 7, 8, 9, 3]])[0] == pytest.approx(one[0], abs=1e-4)


def test_usage_counts_tokens(embed: EngineProcess) -> None:
    def usage(value: Any) -> dict[str, int]:
        return dict(embed.post(PATH, {"input": value}).json()["usage"])

    assert usage([[7, 8, 9]]) == {"prompt_tokens": 5, "total_tokens": 5}
    assert usage([[7, 8, 9], [7]])["total_tokens"] == 8


def test_an_over_long_input_is_refused(embed: EngineProcess) -> None:
    response = embed.post(PATH, {"input": ["short", "cat " * 500]})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "Input 1" in response.json()["error"]["message"]


def test_an_over_long_input_is_cut_where_the_option_says_so(short_dir: Path, embed_model: Path) -> None:
    with running("embed", short_dir, str(embed_model), options={"truncate": True}) as engine:
        usage = engine.post(PATH, {"input": "cat " * 500}).json()["usage"]
        assert usage["total_tokens"] == engine.health()["context"]
        assert len(vectors(engine, [[7] * 500])) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": [10**9]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 100000}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "input_type": "query"}, "input_type"),
    ],
)
def test_wrong_bodies_name_their_field(embed: EngineProcess, body: dict[str, Any], param: str) -> None:
    response = embed.post(PATH, body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
