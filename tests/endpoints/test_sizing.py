"""The guess at a request's size."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from inferq import errors
from inferq.catalog import Catalog
from inferq.config import ModelSettings, Settings
from inferq.endpoints import ENDPOINTS
from inferq.endpoints.length import most_tokens, tokens_of
from inferq.endpoints.text import check_prompt
from inferq.request import check, job_spec

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}


@pytest.mark.parametrize(
    ("endpoint", "body", "units"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 50}, 150),
        ("chat/completions", {"messages": [{"role": "user", "content": "x" * 400}]}, 100 + 128),
        ("chat/completions", {"messages": [{"role": "user", "content": [IMAGE]}], "max_tokens": 8}, 520),
        ("chat/completions", {"messages": [], "max_completion_tokens": 10, "n": 3}, 30),
        ("completions", {"prompt": ["x" * 40, "x" * 40], "max_tokens": 1}, 21),
        ("completions", {"prompt": [[1, 2, 3], [4]], "max_tokens": 1}, 5),
        ("embeddings", {"input": [1, 2, 3, 4, 5]}, 5),
        ("embeddings", {"input": "x"}, 1),
    ],
)
def test_units(endpoint: str, body: dict[str, Any], units: float) -> None:
    model = ModelSettings(engine="noop", source="none", context=128)
    assert ENDPOINTS[endpoint].units(body, model, {}) == units


def test_more_documents_than_the_limit_are_refused() -> None:
    model = ModelSettings(engine="noop", source="none", type="rerank", limits={"documents": 2})  # type: ignore[arg-type]
    ENDPOINTS["rerank"].admit({"query": "q", "documents": ["a", "b"]}, model, {})
    with pytest.raises(errors.InvalidRequest) as refused:
        ENDPOINTS["rerank"].admit({"query": "q", "documents": ["a", "b", "c"]}, model, {})
    assert refused.value.param == "documents"


FORMS: list[tuple[str, dict[str, Any]]] = [
    ("responses", {"input": "hi", "max_output_tokens": 100_000}),
    ("messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 100_000}),
]


def catalog() -> Catalog:
    return Catalog(Settings.model_validate({"models": {"m": {"engine": "vllm", "source": "none"}}}))


@pytest.mark.parametrize(("endpoint", "body"), FORMS)
@pytest.mark.parametrize("number", ["x", 1e308, [1], 2, 0])
def test_a_number_of_answers_that_a_form_does_not_know_is_refused(
    endpoint: str, body: dict[str, Any], number: Any
) -> None:
    check(catalog(), ENDPOINTS[endpoint], {"model": "m", **body, "n": 1})
    with pytest.raises(errors.InvalidRequest) as refused:
        check(catalog(), ENDPOINTS[endpoint], {"model": "m", **body, "n": number})
    assert refused.value.param == "n"


@pytest.mark.parametrize("units", [math.inf, math.nan, 1e13])
def test_work_that_nobody_can_do_is_no_job(units: float) -> None:
    body = {"model": "m", "input": "hi"}
    asked = check(catalog(), ENDPOINTS["responses"], body)
    asked.endpoint = replace(asked.endpoint, units=lambda *_: units)
    with pytest.raises(errors.InvalidRequest, match="more work"):
        asked.admit()


def test_the_longest_answer_that_a_field_allows_is_a_job() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2**31, "n": 128}
    asked = check(catalog(), ENDPOINTS["chat/completions"], body)
    asked.admit()
    assert job_spec(asked, Settings()).units > 2**31


def test_many_token_ids_are_not_looked_at_one_by_one() -> None:
    """Everybody's answers wait meanwhile."""
    ids = [7] * 300_000
    for value in (ids, [ids]):
        for work in (tokens_of, most_tokens, lambda value: check_prompt(value, "prompt")):
            assert steps(work, value) < 1000, work
    assert (tokens_of(ids), tokens_of([ids, "1234"])) == (300_000, 300_001)
    assert most_tokens([ids, "1234"]) == 8 * 300_000 + 4
    assert (tokens_of([1, "1234", 2]), most_tokens([1, "1234", 2])) == (3, 20)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ([1, 2, "x"], "prompt[2]"),
        ([1, True], "prompt[1]"),
        (["x", 1], "prompt[1]"),
        ([[1], "x"], "prompt[1]"),
        ([[1], [1, 2.0]], "prompt[1]"),
        ([None], "prompt[0]"),
        ([{}, {}], "prompt[0]"),
        ([True, True], "prompt[0]"),
    ],
)
def test_a_mixture_is_refused_at_its_place(value: list[Any], where: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        check_prompt(value, "prompt")
    assert refused.value.param == where


def steps(work: Callable[[Any], Any], value: Any) -> int:
    """Lines of Python that run."""
    count = 0

    def trace(*_: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work(value)
    finally:
        sys.settrace(before)
    return count
