"""The rerank engine: meaning, the library's own scores, forms, limits, and batches."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.engines.process import EngineProcess, library, running

PATH = "/v1/rerank"
CLOSE = 1e-5


def ask(engine: EngineProcess, query: str, documents: list[Any], **more: Any) -> dict[str, Any]:
    response = engine.post(PATH, {"query": query, "documents": documents, **more})
    assert response.status_code == 200, response.text
    return dict(response.json())


def scores(answer: dict[str, Any]) -> list[float]:
    """By place of the document."""
    return [
        result["relevance_score"] for result in sorted(answer["results"], key=lambda each: int(each["index"]))
    ]


@pytest.fixture(scope="module")
def meanings(rerank_model: Path) -> list[list[str]]:
    return list(json.loads((rerank_model / "meanings.json").read_text("utf-8")))


@pytest.fixture(scope="module")
def documents(meanings: list[list[str]]) -> list[str]:
    """Texts of very different lengths: one is cut, and one holds nothing."""
    texts = [text for meaning in meanings for text in meaning]
    return [*texts, " ".join(texts), texts[0] * 40, "", "x"]


def test_what_means_the_same_comes_first(rerank: EngineProcess, meanings: list[list[str]]) -> None:
    documents = [meaning[1] for meaning in meanings]
    for place, (query, *_) in enumerate(meanings):
        results = ask(rerank, query, documents)["results"]
        assert results[0]["index"] == place, query
        assert results[0]["relevance_score"] > 0.5 > results[1]["relevance_score"]


def test_scores_are_the_library_s(
    rerank: EngineProcess, rerank_model: Path, meanings: list[list[str]], documents: list[str]
) -> None:
    queries = [meanings[0][0], meanings[8][0], " ".join(text for meaning in meanings[:5] for text in meaning)]
    pairs = [[query, document] for query in queries for document in documents]
    wanted = library("predict", rerank_model, pairs)
    found = [ask(rerank, query, documents) for query in queries]
    assert [score for answer in found for score in scores(answer)] == pytest.approx(wanted, abs=CLOSE)
    for number, answer in enumerate(found):
        part = wanted[number * len(documents) : (number + 1) * len(documents)]
        order = [result["index"] for result in answer["results"]]
        assert order == sorted(range(len(part)), key=lambda place: (-part[place], place))


def test_raw_scores_are_the_model_s_logits(
    rerank: EngineProcess, rerank_model: Path, meanings: list[list[str]]
) -> None:
    query, documents = meanings[1][0], [meaning[1] for meaning in meanings]
    wanted = library("logits", rerank_model, [[query, document] for document in documents])
    assert min(wanted) < 0
    assert scores(ask(rerank, query, documents, raw_scores=True)) == pytest.approx(wanted, abs=1e-4)


def test_a_document_alone_or_in_company_has_the_same_score(
    rerank: EngineProcess, meanings: list[list[str]], documents: list[str]
) -> None:
    query = meanings[2][0]
    together = scores(ask(rerank, query, documents))
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda text: scores(ask(rerank, query, [text]))[0], documents))
    assert alone == pytest.approx(together, abs=CLOSE)


def test_requests_that_arrive_together_share_runs(rerank: EngineProcess) -> None:
    before = rerank.health()
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda number: ask(rerank, f"text {number}", ["one", "two"]), range(64)))
    after = rerank.health()
    assert after["items"] - before["items"] == 128
    assert after["batches"] - before["batches"] < 50


def test_equal_documents_are_computed_once_and_come_in_order(rerank: EngineProcess) -> None:
    before = rerank.health()["items"]
    answer = ask(rerank, "q", ["same", "other", "same", {"text": "same"}])
    assert rerank.health()["items"] - before == 2
    assert len(answer["results"]) == 4
    assert [each["index"] for each in answer["results"] if each["index"] != 1] == [0, 2, 3]
    once = ask(rerank, "q", ["same"])["usage"]["total_tokens"]
    assert answer["usage"]["total_tokens"] == 3 * once + ask(rerank, "q", ["other"])["usage"]["total_tokens"]


def test_documents_come_back_as_they_were_sent(rerank: EngineProcess) -> None:
    answer = ask(rerank, "q", ["one", {"text": "two"}])
    shown = {result["index"]: result["document"] for result in answer["results"]}
    assert shown == {0: "one", 1: {"text": "two"}}
    bare = ask(rerank, "q", ["one", {"text": "two"}], return_documents=False)
    assert all(set(result) == {"index", "relevance_score"} for result in bare["results"])


def test_the_answer_s_form(rerank: EngineProcess) -> None:
    answer = ask(rerank, "q", ["one"])
    assert set(answer) == {"id", "model", "results", "usage", "meta"}
    assert answer["model"] == rerank.name
    assert answer["meta"] == {"billed_units": {"search_units": 1}}
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    assert 0 <= answer["results"][0]["relevance_score"] <= 1


@pytest.mark.parametrize(
    ("more", "count"), [({}, 3), ({"top_n": 2}, 2), ({"top_k": 1}, 1), ({"top_n": 50}, 3)]
)
def test_as_many_results_as_asked(rerank: EngineProcess, more: dict[str, int], count: int) -> None:
    whole = ask(rerank, "q", ["one", "two", "three"])["results"]
    assert ask(rerank, "q", ["one", "two", "three"], **more)["results"] == whole[:count]
    assert len(whole[:count]) == count


def test_a_document_is_cut_where_asked(rerank: EngineProcess) -> None:
    long, short = "cat " * 20, "cat cat"
    one = ask(rerank, "cat", [long], max_tokens_per_doc=2)
    assert scores(one) == scores(ask(rerank, "cat", [short]))
    assert scores(one) != scores(ask(rerank, "cat", [long]))


def test_over_long_documents_are_cut_or_refused(rerank: EngineProcess) -> None:
    long = "cat " * 500
    cut = ask(rerank, "cat", ["short", long])
    assert cut["usage"]["total_tokens"] > rerank.health()["context"]
    refused = rerank.post(PATH, {"query": "cat", "documents": ["short", "short", long], "truncate": False})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (
        400,
        "context_length_exceeded",
        "documents",
    )
    assert "Document 2 " in error["message"]


def test_an_over_long_query_is_refused(rerank: EngineProcess) -> None:
    refused = rerank.post(PATH, {"query": "cat " * 500, "documents": ["short"]})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "query")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": 7}, "query"),
        ({"query": ["a"]}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "one"}, "documents"),
        ({"documents": ["one", 7]}, "documents[1]"),
        ({"documents": [None]}, "documents[0]"),
        ({"documents": [{"title": "t"}]}, "documents[0]"),
        ({"documents": [{"text": 7}]}, "documents[0]"),
        ({"documents": [{"text": "t", "title": "t"}]}, "documents[0]"),
        ({"documents": ["a"] * 1001}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"top_k": -1}, "top_k"),
        ({"top_n": "2"}, "top_n"),
        ({"top_n": 1, "top_k": 2}, "top_k"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"truncate": "END"}, "truncate"),
        ({"raw_scores": 1}, "raw_scores"),
        ({"rank_fields": ["title"]}, "rank_fields"),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc"),
    ],
)
def test_wrong_bodies_name_their_field(rerank: EngineProcess, body: dict[str, Any], param: str) -> None:
    response = rerank.post(PATH, {"query": "q", "documents": ["one", "two"], **body})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_options_bound_a_request(socket_dir: Path, rerank_model: Path) -> None:
    options = {"max_documents": 2, "max_length": 16, "batch_items": 1}
    with running("rerank", socket_dir, str(rerank_model), options=options) as engine:
        assert engine.health()["context"] == 16
        assert engine.post(PATH, {"query": "q", "documents": ["a"] * 3}).status_code == 400
        answer = ask(engine, "cat", ["cat " * 50, "dog " * 50])
        assert answer["usage"]["total_tokens"] == 32
        assert engine.health()["batches"] == 2
