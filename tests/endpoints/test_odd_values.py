"""Whatever stands in a field, with a row in the endpoint's table or without, it is taken or refused by name."""

from typing import Any

import pytest

from inferq import errors
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.endpoints import ENDPOINTS
from inferq.request import check

BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "completions": {"prompt": "hi"},
    "responses": {"input": "hi"},
    "messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
    "embeddings": {"input": "hi"},
    "rerank": {"query": "q", "documents": ["d"]},
    "images/generations": {"prompt": "p"},
    "images/edits": {"prompt": "p", "image": "artifact:x"},
    "video/generations": {"prompt": "p"},
    "audio/speech": {"input": "hi"},
    "audio/transcriptions": {"file": "artifact:x"},
    "audio/translations": {"file": "artifact:x"},
    "models/pull": {"source": "org/name"},
}
ODD: list[Any] = [
    *("abc", "", 5, -1, 1e308, True, [], [{}], {}, {"a": 1}),
    *([5], [[]], ["a", 5], [None], [{"file": 5}], [{"type": "text"}], [[{}]]),
]
NAMES = sorted({name for endpoint in ENDPOINTS.values() for name in endpoint.table} | {"truncation", "extra"})


def catalog() -> Catalog:
    models = {
        endpoint.takes[0]: {"engine": "noop", "source": "x", "type": endpoint.takes[0], "context": 4096}
        for endpoint in ENDPOINTS.values()
        if not endpoint.built_in
    }
    for kind in models.values():
        kind["engine"] = {"chat": "vllm", "asr": "asr"}.get(kind["type"], "noop")
    return Catalog(Settings.model_validate({"models": models}))


def test_every_endpoint_is_here() -> None:
    assert set(BODIES) == set(ENDPOINTS)


@pytest.mark.parametrize("path", BODIES)
def test_odd_values_are_taken_or_refused(path: str) -> None:
    known, endpoint = catalog(), ENDPOINTS[path]
    for name in NAMES:
        for value in ODD:
            body = {"model": endpoint.takes[0], **BODIES[path], name: value}
            if name == "files":
                body.pop("file", None)
            try:
                asked = check(known, endpoint, body)
                assert all(isinstance(place.named, str) for place in asked.places())
                asked.admit()
            except errors.InferqError:
                continue
            except Exception as error:  # noqa: BLE001  # each kind is a 500
                pytest.fail(f"{name}={value!r}: {type(error).__name__}: {error}")
