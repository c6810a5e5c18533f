"""The embedding engine: meaning, forms, limits, and batches."""

import base64
import json
import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import EngineProcess, library, running

PATH = "/v1/embeddings"
CLOSE = 1e-5
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


def test_an_over_long_input_is_cut_where_the_option_says_so(socket_dir: Path, embed_model: Path) -> None:
    with running("embed", socket_dir, str(embed_model), options={"truncate": True}) as engine:
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
        ({"input": "a", "input_type": "poem"}, "input_type"),
    ],
)
def test_wrong_bodies_name_their_field(embed: EngineProcess, body: dict[str, Any], param: str) -> None:
    response = embed.post(PATH, body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def texts_of(meanings: list[list[str]]) -> list[str]:
    """Of very different lengths, so that a batch has padding."""
    texts = [text for meaning in meanings for text in meaning]
    return [*texts, " ".join(texts[:6]), "x"]


@pytest.mark.parametrize("alone", [True, False])
def test_vectors_are_the_library_s(
    embed: EngineProcess, embed_model: Path, meanings: list[list[str]], alone: bool
) -> None:
    texts = texts_of(meanings)
    wanted = library("encode", embed_model, {"texts": texts})
    found = [vectors(embed, text)[0] for text in texts] if alone else vectors(embed, texts)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=CLOSE)


def test_a_cut_text_is_cut_as_the_library_cuts(embed: EngineProcess, embed_model: Path) -> None:
    long = "cat sofa rain " * 200
    (wanted,) = library("encode", embed_model, {"texts": [long]})
    assert vectors(embed, long, truncate=True)[0] == pytest.approx(wanted, abs=CLOSE)
    usage = embed.post(PATH, {"input": long, "truncate": True}).json()["usage"]
    assert usage["total_tokens"] == embed.health()["context"]


def test_a_request_can_ask_not_to_be_cut(socket_dir: Path, embed_model: Path) -> None:
    with running("embed", socket_dir, str(embed_model), options={"truncate": True}) as engine:
        refused = engine.post(PATH, {"input": "cat " * 500, "truncate": False})
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        framed = [2, *[7] * 500, 3]
        usage = engine.post(PATH, {"input": framed}).json()["usage"]
        assert usage["total_tokens"] == engine.health()["context"]


def test_equal_inputs_are_computed_once_and_counted_each(embed: EngineProcess) -> None:
    before = embed.health()["items"]
    response = embed.post(PATH, {"input": ["same", "other", "same"]}).json()
    assert embed.health()["items"] - before == 2
    first, other, last = [entry["embedding"] for entry in response["data"]]
    assert first == last != other
    one = embed.post(PATH, {"input": ["same", "other"]}).json()["usage"]["total_tokens"]
    assert response["usage"]["total_tokens"] > one


def test_tokens_of_another_tokenizer_are_refused_with_the_remedy(embed: EngineProcess) -> None:
    """What LangChain's OpenAIEmbeddings sends unless it is told not to."""
    response = embed.post(PATH, {"input": [[9906, 1917, 100256]]})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "input")
    assert "9906" in error["message"]
    assert "check_embedding_ctx_length=False" in error["message"]


PROMPTS = {"query": "search the sofa: ", "passage": "read: ", "poem": "sing: "}


@pytest.fixture(scope="module")
def prompted(socket_dir: Path, embed_model: Path) -> Iterator[EngineProcess]:
    with running("embed", socket_dir, str(embed_model), options={"prompts": PROMPTS}) as engine:
        yield engine


@pytest.mark.parametrize(
    ("field", "prompt"),
    [
        ({"input_type": "query"}, PROMPTS["query"]),
        ({"input_type": "search_query"}, PROMPTS["query"]),
        ({"prompt_name": "query"}, PROMPTS["query"]),
        ({"input_type": "passage"}, PROMPTS["passage"]),
        ({"input_type": "document"}, PROMPTS["passage"]),
        ({"input_type": "search_document"}, PROMPTS["passage"]),
        ({"input_type": "poem"}, PROMPTS["poem"]),
        ({"prompt_name": "document"}, ""),
        ({}, ""),
    ],
)
def test_a_prompt_goes_before_the_text(
    embed: EngineProcess, prompted: EngineProcess, field: dict[str, str], prompt: str
) -> None:
    text = "a cat"
    plain = vectors(embed, prompt + text)[0]
    assert vectors(prompted, text, **field)[0] == pytest.approx(plain, abs=CLOSE)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a", "prompt_name": "song"}, "prompt_name"),
        ({"input": "a", "input_type": "song"}, "input_type"),
        ({"input": "a", "input_type": "query", "prompt_name": "query"}, "prompt_name"),
        ({"input": [7, 8], "input_type": "query"}, "input_type"),
        ({"input": "a", "prompt_name": 7}, "prompt_name"),
    ],
)
def test_prompts_nobody_has(prompted: EngineProcess, body: dict[str, Any], param: str) -> None:
    response = prompted.post(PATH, body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    if "song" in body.values():
        assert "It has: document, passage, poem, query." in response.json()["error"]["message"]


def test_prompts_of_the_model_s_folder(socket_dir: Path, embed_model: Path, tmp_path: Path) -> None:
    """With a pooling that leaves the prompt out of the mean, whatever company a text has."""
    folder = tmp_path / "prompted"
    shutil.copytree(embed_model, folder)
    change(folder / "config_sentence_transformers.json", prompts=PROMPTS, default_prompt_name="poem")
    change(folder / "1_Pooling" / "config.json", include_prompt=False)
    asked = {"query": {"prompt_name": "query"}, "default": {}}
    texts = ["a cat", "it rains on the sofa"]
    wanted = {name: library("encode", folder, {"texts": texts, "how": how}) for name, how in asked.items()}
    with running("embed", socket_dir, str(folder)) as engine, ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            both = {name: pool.submit(vectors, engine, texts, **how) for name, how in asked.items()}
            for name, found in both.items():
                for one, other in zip(found.result(), wanted[name], strict=True):
                    assert one == pytest.approx(other, abs=CLOSE)


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")


@pytest.mark.parametrize("name", ["return_sparse", "return_colbert"])
def test_heads_that_a_model_has_not(embed: EngineProcess, name: str) -> None:
    error = embed.post(PATH, {"input": "a", name: True}).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", name)
    assert embed.post(PATH, {"input": "a", name: False, "return_dense": True}).status_code == 200


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_vector_that_is_no_numbers_is_the_engine_s_fault(
    socket_dir: Path, embed_model: Path, tmp_path: Path, value: float
) -> None:
    """JSON has no such numbers: they would be sent as null."""
    folder = tmp_path / "spoilt"
    shutil.copytree(embed_model, folder)
    spoil(folder / "model.safetensors", token=7, value=value)
    with running("embed", socket_dir, str(folder)) as engine:
        for more in ({}, {"encoding_format": "base64"}, {"dimensions": 4}):
            answer = engine.post(PATH, {"input": [[8], [7, 8]], **more})
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
        assert vectors(engine, [[8]])


def spoil(file: Path, token: int, value: float) -> None:
    """Write a number over the weights of one token."""
    raw = bytearray(file.read_bytes())
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    tensors = json.loads(raw[8:start])
    (table,) = (tensor for name, tensor in tensors.items() if name.endswith("word_embeddings.weight"))
    assert table["dtype"] == "F32"
    width = table["shape"][1]
    at = start + table["data_offsets"][0] + 4 * width * token
    raw[at : at + 4 * width] = struct.pack("<f", value) * width
    file.write_bytes(raw)
