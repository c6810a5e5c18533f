"""Answers with pictures, also of engines that answer something else."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from api.pictures import linked, rendered
from storage.artifacts import ArtifactStore


def link(sha256: str) -> str:
    return f"http://here/{sha256}"


@pytest.mark.parametrize(
    "answer",
    [{}, {"data": None}, {"data": 5}, {"data": {"a": 1}}, {"data": [5, None, {}]}, [], [1], "x", None],
)
async def test_an_answer_without_pictures_stays_as_it_is(tmp_path: Path, answer: Any) -> None:
    store = await ArtifactStore.open("artifacts", tmp_path)
    assert linked(answer, link) == answer
    assert orjson.loads(await rendered(orjson.dumps(answer), None, store, link)) == answer


async def test_pictures_become_links(tmp_path: Path) -> None:
    store = await ArtifactStore.open("artifacts", tmp_path)
    answer = {"created": 1, "data": [{"artifact": "a", "seed": 1}, {"url": "there"}]}
    shown = {"created": 1, "data": [{"url": "http://here/a", "seed": 1}, {"url": "there"}]}
    assert orjson.loads(await rendered(orjson.dumps(answer), None, store, link)) == shown
    in_a_job = linked(answer, link)
    assert in_a_job["data"] == [{"artifact": "a", "seed": 1, "url": "http://here/a"}, {"url": "there"}]
