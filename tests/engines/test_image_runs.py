"""The image engine while it works: streams, progress, and callers who leave."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.engines.pictures import GENERATIONS, decoded, furthest, one
from tests.engines.process import EngineProcess, eventually

LONG = {"prompt": "red", "size": "256x256", "steps": 150}


def events(engine: EngineProcess, body: dict[str, Any], path: str = GENERATIONS) -> list[dict[str, Any]]:
    """The events of a stream, each with its name checked; the last line is `[DONE]`."""
    with engine.client() as client, client.stream("POST", path, json=body | {"stream": True}) as response:
        raw = response.read().decode()
        assert response.status_code == 200, raw
    blocks = raw.removesuffix("\n\n").split("\n\n")
    assert blocks.pop() == "data: [DONE]"
    found = []
    for block in blocks:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_a_stream_shows_the_picture_on_its_way(image: EngineProcess) -> None:
    body = {"prompt": "blue paint", "seed": 3, "steps": 9, "output_format": "webp"}
    *partial, last = events(image, body | {"partial_images": 3})
    assert [event["type"] for event in partial] == ["image_generation.partial_image"] * 3
    assert [event["partial_image_index"] for event in partial] == [0, 1, 2]
    assert (last["type"], last["seed"], last["size"]) == ("image_generation.completed", 3, "64x64")
    pictures = [decoded(event["b64_json"]) for event in (*partial, last)]
    assert {picture.format for picture in pictures} == {"WEBP"}
    assert len({picture.tobytes() for picture in pictures}) == 4
    plain = image.post(GENERATIONS, body).json()["data"][0]["b64_json"]
    assert last["b64_json"] == plain


def test_a_stream_of_several_pictures(image: EngineProcess) -> None:
    found = events(image, {"prompt": "red", "n": 2, "seed": 3, "steps": 4, "partial_images": 1})
    kinds = [(event["type"].rpartition(".")[2], event["index"]) for event in found]
    assert sorted(kinds[:2]) == [("partial_image", 0), ("partial_image", 1)]
    assert kinds[2:] == [("completed", 0), ("completed", 1)]
    for event, seed in zip(found[2:], (3, 4), strict=True):
        alone = one(image, "red", seed=seed, steps=4)
        assert furthest(decoded(event["b64_json"]), alone) <= 1


def test_a_stream_without_previews_has_one_event(image: EngineProcess) -> None:
    (only,) = events(image, {"prompt": "red", "steps": 2})
    assert only["type"] == "image_generation.completed"


def test_a_bad_request_for_a_stream_has_its_own_status(image: EngineProcess) -> None:
    response = image.post(GENERATIONS, {"prompt": "red", "stream": True, "image": "file:///etc/passwd"})
    assert response.status_code == 400


def run_of(engine: EngineProcess, name: str) -> dict[str, Any] | None:
    return next((run for run in engine.get("/runs").json()["runs"] if run["id"] == name), None)


def test_progress_is_told_step_by_step(image: EngineProcess) -> None:
    with image.sent(GENERATIONS, LONG | {"steps": 40}, "watched"):
        seen: list[float] = []
        while len(set(seen)) < 4:
            run = run_of(image, "watched")
            if run and run["stage"] == "painting":
                assert run["total"] == 40
                seen.append(run["done"])
    assert seen == sorted(seen)


def test_a_caller_who_leaves_frees_the_device_within_a_step(image: EngineProcess) -> None:
    with image.sent(GENERATIONS, LONG, "left"):
        eventually(lambda: (run_of(image, "left") or {}).get("done", 0) >= 2, "painting")
    # The next run begins at once: the one that was left would have taken minutes.
    assert image.post(GENERATIONS, {"prompt": "red", "steps": 1}).elapsed.total_seconds() < 3
    assert image.running() == set()


def test_a_caller_who_leaves_takes_nobody_along(image: EngineProcess) -> None:
    body = {"prompt": "red", "steps": 40, "seed": 9, "size": "128x128"}
    with ThreadPoolExecutor(1) as pool:
        with image.sent(GENERATIONS, LONG, "first"):
            eventually(lambda: (run_of(image, "first") or {}).get("done", 0) >= 1, "painting")
            with image.sent(GENERATIONS, body, "goes"):
                answer = pool.submit(image.post, GENERATIONS, body)
                eventually(lambda: image.health()["waiting"] == 2, "both wait")
                before = image.health()["batches"]
        picture = decoded(answer.result().json()["data"][0]["b64_json"])
    assert image.health()["batches"] == before + 1
    assert furthest(picture, one(image, **body)) <= 1
