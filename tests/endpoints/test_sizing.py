"""The guess at a request's size."""

from typing import Any

import pytest

from inferq import errors
from inferq.config import ModelSettings
from inferq.endpoints import ENDPOINTS

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
