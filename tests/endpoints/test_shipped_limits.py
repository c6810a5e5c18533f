"""The demo models' limits: what their engines cannot do is refused before it waits."""

from pathlib import Path
from typing import Any

import pytest

from inferq import errors
from inferq.catalog import Catalog
from inferq.config import load_settings
from inferq.endpoints import ENDPOINTS
from inferq.request import check

CATALOG = Catalog(load_settings(Path(__file__).parents[2] / "scheduler_config.yaml", environ={}))
VIDEO = {"model": "demo-video", "prompt": "a red cat"}
BODIES: dict[str, dict[str, Any]] = {
    "images/generations": {"model": "demo-image", "prompt": "red"},
    "video/generations": VIDEO,
    "audio/speech": {"model": "demo-speech", "voice": "alloy"},
    "rerank": {"model": "demo-rerank", "query": "a"},
}


@pytest.mark.parametrize(
    ("path", "legal", "beyond", "param"),
    [
        ("images/generations", {"size": "256x256"}, {"size": "264x256"}, "size"),
        ("video/generations", {"size": "96x64"}, {"size": "112x64"}, "size"),
        ("video/generations", {"resolution": "64x96"}, {"resolution": "128x64"}, "resolution"),
        ("video/generations", {"width": 96, "height": 64}, {"width": 96, "height": 80}, "width"),
        ("video/generations", {"duration": 6.125}, {"duration": 6.2}, "duration"),
        ("video/generations", {"fps": 60}, {"fps": 61}, "fps"),
        ("video/generations", {"steps": 100}, {"steps": 101}, "steps"),
        ("audio/speech", {"input": "a" * 4096}, {"input": "a" * 4097}, "input"),
        ("rerank", {"documents": ["a"] * 1000}, {"documents": ["a"] * 1001}, "documents"),
    ],
)
def test_what_is_beyond_a_demo_model_is_refused_at_once(
    path: str, legal: dict[str, Any], beyond: dict[str, Any], param: str
) -> None:
    check(CATALOG, ENDPOINTS[path], BODIES[path] | legal).admit()
    with pytest.raises(errors.InvalidRequest, match="this model's limit is") as caught:
        check(CATALOG, ENDPOINTS[path], BODIES[path] | beyond).admit()
    assert caught.value.param == param
