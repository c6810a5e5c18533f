"""The manual's calls for videos: a task with an id, asked for until it is done, and a file that plays."""

from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.e2e.manual.names import FILMER
from tests.e2e.waiting import until
from tests.engines.film import Film, decode, difference

ASKED = {
    "model": FILMER,
    "prompt": "a red cat runs",
    "duration": 2,
    "fps": 12,
    "resolution": "64x64",
    "steps": 4,
    "seed": 1,
}


def played(url: str, folder: Path) -> Film:
    """The film behind a link, which needs no key."""
    with httpx2.Client(timeout=60) as anybody:
        response = anybody.get(url)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "video/mp4"
    return decode(response.content, folder)


def completed(http: httpx2.Client, task: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = dict(http.get(f"video/generations/{task}").json())
        assert found["status"] in ("queued", "in_progress", "completed"), found
        return found if found["status"] == "completed" else None

    found = until(look, "the video is done", within=120)
    assert found is not None
    return found


def test_a_task_is_asked_for_until_it_is_done(http: httpx2.Client, tmp_path: Path) -> None:
    accepted = http.post("video/generations", json=ASKED)
    assert accepted.status_code == 202, accepted.text
    assert int(accepted.headers["Retry-After"]) >= 1
    task = accepted.json()
    assert task["status"] in ("queued", "in_progress")
    assert task["data"] == []
    done = completed(http, task["task_id"])
    assert done["progress"] == 1
    film = played(done["data"][0]["url"], tmp_path)
    assert (film.codec, film.size, film.fps.removesuffix("/1")) == ("h264", (64, 64), "12")
    assert len(film.times) == 24
    assert film.seconds == pytest.approx(2, rel=0.02)


def test_a_caller_who_can_wait_gets_the_file_at_once(http: httpx2.Client, tmp_path: Path) -> None:
    """As the manual's example reads the answer: `data` is in the first one."""
    body = ASKED | {"resolution": "64p", "duration": 1, "fps": 24}
    response = http.post("video/generations", json=body, headers={"Prefer": "wait=100"})
    assert response.status_code == 200, response.text
    film = played(response.json()["data"][0]["url"], tmp_path)
    # A height alone keeps the model's own shape.
    assert (film.size, film.fps.removesuffix("/1"), len(film.times)) == ((96, 64), "24", 24)


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
def test_the_client_s_own_way(client: openai.OpenAI, tmp_path: Path) -> None:
    more = {"fps": 8, "steps": 4, "seed": 1}
    made = client.videos.create_and_poll(
        model=FILMER,
        prompt="the blue sea",
        seconds="1",  # type: ignore[arg-type]
        size="64x64",  # type: ignore[arg-type]
        extra_body=more,
        poll_interval_ms=200,
    )
    assert (made.status, made.progress, made.seconds) == ("completed", 100, "1")
    sea = decode(client.videos.download_content(made.id).read(), tmp_path)
    assert (len(sea.times), sea.size) == (8, (64, 64))
    assert made.id in [video.id for video in client.videos.list().data]
    cat = client.videos.create_and_poll(
        model=FILMER,
        prompt="a red cat",
        seconds="1",  # type: ignore[arg-type]
        size="64x64",  # type: ignore[arg-type]
        extra_body=more,
        poll_interval_ms=200,
    )
    assert difference(sea, decode(client.videos.download_content(cat.id).read(), tmp_path)) > 6


@pytest.mark.parametrize(
    ("wrong", "param"),
    [({"duration": 60}, "duration"), ({"resolution": "big"}, "resolution"), ({"fps": 0}, "fps")],
)
def test_what_is_wrong_is_named(http: httpx2.Client, wrong: dict[str, Any], param: str) -> None:
    response = http.post("video/generations", json=ASKED | wrong)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
