"""bge-m3's three forms of a text, against a plain computation from its hidden states."""

import base64
import json
import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import EngineProcess, demo_model, library, running
from tests.engines.test_embed import spoil

PATH = "/v1/embeddings"
ALL = {"return_dense": True, "return_sparse": True, "return_colbert": True}
TEXTS = ["The cat sleeps on the sofa, the sofa.", "猫在沙发上睡觉。", "x", "It will rain tomorrow. " * 5]
CLOSE = 1e-5


@pytest.fixture(scope="module")
def model() -> Path:
    return demo_model("demo-bge-m3")


@pytest.fixture(scope="module")
def wanted(model: Path) -> list[dict[str, Any]]:
    return list(library("bgem3", model, TEXTS))


@pytest.fixture(scope="module")
def m3(socket_dir: Path, model: Path) -> Iterator[EngineProcess]:
    with running("embed", socket_dir, str(model)) as engine:
        yield engine


def entries(engine: EngineProcess, value: Any, **more: Any) -> list[dict[str, Any]]:
    response = engine.post(PATH, {"input": value, **more})
    assert response.status_code == 200, response.text
    return list(response.json()["data"])


def check(entry: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert entry["embedding"] == pytest.approx(wanted["dense"], abs=CLOSE)
    assert entry["sparse_embedding"] == pytest.approx(wanted["sparse"], abs=CLOSE)
    for vector, other in zip(entry["colbert_embedding"], wanted["colbert"], strict=True):
        assert vector == pytest.approx(other, abs=CLOSE)


def test_the_demo_s_weights_decide_something(wanted: list[dict[str, Any]]) -> None:
    weights = [len(each["sparse"]) for each in wanted]
    assert min(weights[0], weights[3]) > 0
    assert all(len(each["sparse"]) < len(each["colbert"]) for each in wanted)


def test_all_forms_together(m3: EngineProcess, wanted: list[dict[str, Any]]) -> None:
    for entry, other in zip(entries(m3, TEXTS, **ALL), wanted, strict=True):
        check(entry, other)


def test_all_forms_alone_and_beside_others(m3: EngineProcess, wanted: list[dict[str, Any]]) -> None:
    """Callers of one batch want different forms."""
    with ThreadPoolExecutor(8) as pool:
        plain = [pool.submit(entries, m3, text) for text in TEXTS * 3]
        whole = [pool.submit(entries, m3, text, **ALL) for text in TEXTS]
    for found, other in zip(whole, wanted, strict=True):
        check(found.result()[0], other)
    for found, other in zip(plain, wanted * 3, strict=True):
        (entry,) = found.result()
        assert set(entry) == {"object", "index", "embedding"}
        assert entry["embedding"] == pytest.approx(other["dense"], abs=CLOSE)


def test_only_what_is_asked_for(m3: EngineProcess) -> None:
    (entry,) = entries(m3, "cat", return_dense=False, return_sparse=True)
    assert set(entry) == {"object", "index", "sparse_embedding"}
    nothing = m3.post(PATH, {"input": "cat", "return_dense": False})
    assert (nothing.status_code, nothing.json()["error"]["param"]) == (400, "return_dense")


def test_token_vectors_in_base64(m3: EngineProcess, wanted: list[dict[str, Any]]) -> None:
    (entry,) = entries(m3, TEXTS[0], return_colbert=True, encoding_format="base64")
    for packed, other in zip(entry["colbert_embedding"], wanted[0]["colbert"], strict=True):
        assert list(struct.unpack(f"<{len(other)}f", base64.b64decode(packed))) == pytest.approx(
            other, abs=CLOSE
        )


def test_too_many_token_vectors_are_refused(m3: EngineProcess) -> None:
    texts = [f"{number} cat " * 40 for number in range(2048)]
    response = m3.post(PATH, {"input": texts, "return_colbert": True, "truncate": True})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "return_colbert")


def test_no_more_tokens_than_the_model_has_positions_for(
    socket_dir: Path, model: Path, tmp_path: Path
) -> None:
    """Whatever its tokenizer says: one token more would end in an index out of range."""
    folder = tmp_path / "boastful"
    shutil.copytree(model, folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"model_max_length": 130}), "utf-8")
    with running("embed", socket_dir, str(folder)) as engine:
        assert engine.health()["context"] == 128
        answer = engine.post(PATH, {"input": "cat " * 500, "truncate": True})
        assert answer.json()["usage"]["total_tokens"] == 128


def test_numbers_that_are_none_are_the_engine_s_fault(socket_dir: Path, model: Path, tmp_path: Path) -> None:
    """Whichever form is asked for."""
    folder = tmp_path / "spoilt"
    shutil.copytree(model, folder)
    spoil(folder / "model.safetensors", token=7, value=float("nan"))
    with running("embed", socket_dir, str(folder)) as engine:
        for form in ALL:
            body = {"input": [[7, 8]], **dict.fromkeys(ALL, False), form: True}
            assert engine.post(PATH, body).status_code == 500
        assert entries(engine, [[8]], **ALL)
