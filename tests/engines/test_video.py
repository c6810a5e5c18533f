"""The video engine: what the file holds, what is refused, and how a run is watched and left."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engines.film import Film, decode, difference, unlike
from tests.engines.paint import hostile, plain, shelve
from tests.engines.process import ROOT, EngineProcess, demo_model, eventually, running, spawn

PATH = "/v1/video/generations"
SHORT = {"prompt": "a red cat", "duration": 1, "size": "64x64", "seed": 1, "steps": 2}


def film(engine: EngineProcess, folder: Path, **body: Any) -> Film:
    response = engine.post(PATH, {**SHORT, **body})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "video/mp4"
    return decode(response.content, folder)


def refusal(engine: EngineProcess, body: dict[str, Any]) -> tuple[int, str, str]:
    response = engine.post(PATH, SHORT | body)
    error = response.json()["error"]
    return response.status_code, error["param"], error["message"]


def test_the_file_plays_everywhere(video: EngineProcess, tmp_path: Path) -> None:
    response = video.post(PATH, SHORT)
    seen = decode(response.content, tmp_path)
    assert (seen.codec, seen.pixels) == ("h264", "yuv420p")
    # The index comes before the pictures, so a browser starts before it has the whole file.
    assert 0 < response.content.index(b"moov") < response.content.index(b"mdat")


@pytest.mark.parametrize(
    ("duration", "fps", "frames", "rate"),
    [
        (1, 8, 8, "8"),
        ("2", 24, 48, "24"),
        (0.5, 30, 15, "30"),
        (1.7, 10, 17, "10"),
        (6.125, None, 49, "8"),
        (1, 60, 60, "60"),
        (2, 5, 10, "5"),
        (1, 29.97, 30, "30000/1001"),
    ],
)
def test_the_file_has_the_asked_length_and_rate(
    video: EngineProcess, tmp_path: Path, duration: Any, fps: float | None, frames: int, rate: str
) -> None:
    seen = film(video, tmp_path, duration=duration, fps=fps)
    assert (len(seen.times), seen.fps.removesuffix("/1")) == (frames, rate)
    assert seen.seconds == pytest.approx(frames / (fps or 8), rel=0.002)
    assert seen.times == pytest.approx([number / (fps or 8) for number in range(frames)], abs=0.002)


def test_the_shipped_limits_are_what_the_demo_model_can(socket_dir: Path) -> None:
    """So the gateway refuses what its engine would."""
    shipped = yaml.safe_load((ROOT / "scheduler_config.yaml").read_text())["models"]["demo-video"]["limits"]
    with running("video", socket_dir, str(demo_model("demo-video")), options={"threads": 1}) as engine:
        facts = engine.get("/health").json()
    assert (shipped["pixels"], shipped["duration"]) == (facts["max_pixels"], facts["max_duration"])


def test_the_default_is_what_the_model_makes(video: EngineProcess, tmp_path: Path) -> None:
    response = video.post(PATH, {"prompt": "a red cat", "steps": 1})
    seen = decode(response.content, tmp_path)
    assert (seen.size, len(seen.times), seen.fps) == ((96, 64), 49, "8")


def test_more_frames_per_second_are_between_those_of_the_model(video: EngineProcess, tmp_path: Path) -> None:
    """At twice the rate every second frame is a model's frame, and the one between is the mean of its two."""
    native, double = film(video, tmp_path, fps=8), film(video, tmp_path, fps=16)
    for place in range(7):
        assert unlike(native.colours[place], double.colours[2 * place]) < 4
        pair = zip(native.colours[place], native.colours[place + 1], strict=True)
        middle = bytes((left + right) // 2 for left, right in pair)
        assert unlike(middle, double.colours[2 * place + 1]) < 4
    assert unlike(native.colours[0], native.colours[1]) > 8


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"size": "96x64"}, (96, 64)),
        ({"size": None, "resolution": "64p"}, (96, 64)),
        ({"size": None, "resolution": "48p"}, (80, 48)),
        ({"size": None, "width": 80, "height": 96}, (80, 96)),
    ],
)
def test_the_file_has_the_asked_size(
    video: EngineProcess, tmp_path: Path, asked: dict[str, Any], size: tuple[int, int]
) -> None:
    assert film(video, tmp_path, **asked).size == size


def test_a_size_nearly_right_is_scaled(short_dir: Path, tmp_path: Path) -> None:
    options = {"max_pixels": 400 * 64, "threads": 1}
    with running("video", short_dir, str(demo_model("demo-video")), options=options) as engine:
        exact, scaled = film(engine, tmp_path, size="320x64"), film(engine, tmp_path, size="322x64")
        assert scaled.size == (322, 64)
        assert difference(exact, scaled) < 4
        status, param, message = refusal(engine, {"size": "328x64"})
        assert (status, param) == (400, "size")
        assert "336x64" in message
        assert "320x64" in message


def test_a_seed_repeats_and_another_does_not(video: EngineProcess, tmp_path: Path) -> None:
    first, again, other = (film(video, tmp_path, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert len({video.post(PATH, SHORT).content for _ in range(6)}) == 1
    assert difference(first, other) > 15
    free = [film(video, tmp_path, seed=None) for _ in range(2)]
    assert difference(*free) > 15


def test_the_prompt_matters(video: EngineProcess, tmp_path: Path) -> None:
    cat = film(video, tmp_path)
    assert difference(cat, film(video, tmp_path, prompt="the blue sea")) > 6
    assert difference(cat, film(video, tmp_path, negative_prompt="green moon")) > 2
    assert difference(cat, film(video, tmp_path, guidance_scale=1)) > 2
    assert difference(cat, film(video, tmp_path, steps=6)) > 2


def test_the_pictures_move(video: EngineProcess, tmp_path: Path) -> None:
    colours = film(video, tmp_path).colours
    assert all(unlike(one, other) > 3 for one, other in itertools.pairwise(colours))


def test_the_file_says_how_it_was_made(video: EngineProcess, tmp_path: Path) -> None:
    tags = film(video, tmp_path, seed=None).tags
    made = json.loads(tags["comment"])
    assert (tags["title"], made["prompt"], made["steps"]) == ("a red cat", "a red cat", 2)
    assert (
        film(video, tmp_path, seed=made["seed"]).colours == film(video, tmp_path, seed=made["seed"]).colours
    )


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "a red cat " * 20}, "prompt"),
        ({"prompt": "a" * 10_000_000}, "prompt"),
        ({"negative_prompt": "x" * 100}, "negative_prompt"),
        ({"negative_prompt": "dog", "guidance_scale": 1}, "negative_prompt"),
        ({"duration": 7}, "duration"),
        ({"duration": "six"}, "duration"),
        ({"duration": "nan"}, "duration"),
        ({"duration": "1e999"}, "duration"),
        ({"duration": -1}, "duration"),
        ({"duration": 0}, "duration"),
        ({"duration": True}, "duration"),
        ({"seconds": 1}, "seconds"),
        ({"fps": 61}, "fps"),
        ({"fps": 0}, "fps"),
        ({"fps": "8"}, "fps"),
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"steps": 2, "num_inference_steps": 2}, "num_inference_steps"),
        ({"guidance_scale": 31}, "guidance_scale"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"n": 2}, "n"),
        ({"size": "huge"}, "size"),
        ({"size": "0x0"}, "size"),
        ({"size": "70x70"}, "size"),
        ({"size": "65x64"}, "size"),
        ({"size": "99999x99999"}, "size"),
        ({"size": "4096x16"}, "size"),
        ({"size": None, "resolution": "720p"}, "resolution"),
        ({"size": None, "width": 64}, "height"),
        ({"width": 64, "height": 64}, "size"),
        ({"image_url": "file:///etc/passwd"}, "image_url"),
        ({"response_format": "gif"}, "response_format"),
        ({"stream": True}, "stream"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(
    video: EngineProcess, body: dict[str, Any], param: str
) -> None:
    assert refusal(video, body)[:2] == (400, param)


def test_limits_are_told(video: EngineProcess) -> None:
    assert "6.125" in refusal(video, {"duration": 7})[2]
    assert "80x64" in refusal(video, {"size": "70x64"})[2]
    health = video.health()
    assert (health["size"], health["size_unit"], health["native_fps"]) == ("96x64", 16, 8.0)
    assert (health["max_frames"], health["max_pixels"], health["from_picture"]) == (49, 9216, False)


def test_refused_before_it_waits(video: EngineProcess) -> None:
    with video.sent(PATH, {"prompt": "a red cat", "steps": 1000}, "slow"):
        eventually(lambda: "slow" in video.running(), "runs")
        began = time.monotonic()
        assert refusal(video, {"duration": 7})[0] == 400
        assert time.monotonic() - began < 2
    eventually(lambda: not video.running(), "released")


def stages(engine: EngineProcess, name: str) -> list[tuple[str, float]]:
    """Every (stage, steps done) that was seen of a run until it ended."""
    seen: list[tuple[str, float]] = []
    with engine.client() as client:
        while True:
            found = [run for run in client.get("/runs").json()["runs"] if run["id"] == name]
            if not found:
                return seen
            now = (found[0]["stage"], found[0]["done"])
            if now not in seen:
                seen.append(now)


def test_progress_moves_step_by_step(video: EngineProcess) -> None:
    body = SHORT | {"steps": 30, "size": "96x64", "duration": 6}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(video.post, PATH, body, {"x-request-id": "watched"})
        eventually(lambda: "watched" in video.running(), "runs")
        seen = stages(video, "watched")
        assert answer.result().status_code == 200
    steps = [done for stage, done in seen if stage == "denoising"]
    assert steps == sorted(steps)
    assert len(steps) > 15
    order = [stage for stage, _ in seen]
    assert ("decoding", 30) in seen
    assert order.index("denoising") < order.index("decoding")


def test_a_caller_who_leaves_stops_the_model_within_a_step(video: EngineProcess) -> None:
    """Someone else's video begins right away, though the one that was left had nearly a thousand steps to go."""
    began = time.monotonic()
    assert video.post(PATH, {"prompt": "a red cat", "steps": 30}).status_code == 200
    thirty_steps = time.monotonic() - began
    with video.sent(PATH, {"prompt": "a red cat", "steps": 1000}, "left"):
        eventually(lambda: "left" in video.running(), "runs")
        time.sleep(0.2)
    began = time.monotonic()
    assert video.post(PATH, SHORT).status_code == 200
    assert time.monotonic() - began < 2 * thirty_steps


def test_who_waits_and_leaves_is_never_run(video: EngineProcess) -> None:
    before = video.health()["made"]
    with video.sent(PATH, {"prompt": "a red cat", "steps": 1000}, "first"):
        eventually(lambda: video.health()["made"] == before + 1, "runs")
        with video.sent(PATH, SHORT, "second"):
            eventually(lambda: video.health()["waiting"] == 1, "waits")
    assert video.post(PATH, SHORT).status_code == 200
    assert video.health()["made"] == before + 2


@pytest.fixture(scope="module")
def animator(socket_dir: Path, media_dir: Path) -> Any:
    options = {"steps": 2, "threads": 1}
    model = str(demo_model("demo-image-video"))
    with running("video", socket_dir, model, options=options, media=media_dir) as engine:
        yield engine


def test_a_video_starts_from_its_picture(animator: EngineProcess, media_dir: Path, tmp_path: Path) -> None:
    red = shelve(media_dir, "red.png", plain((220, 20, 20), 200, 100))
    blue = shelve(media_dir, "blue.png", plain((20, 20, 220)))
    assert animator.health()["from_picture"] is True
    first, again = (film(animator, tmp_path, image_url=red) for _ in range(2))
    assert first == again
    assert difference(first, film(animator, tmp_path, image_url=blue)) > 0.5


def test_a_model_that_starts_from_pictures_needs_one(animator: EngineProcess) -> None:
    assert refusal(animator, {})[:2] == (400, "image_url")


@pytest.mark.parametrize("kind", hostile())
def test_hostile_pictures_are_refused(animator: EngineProcess, media_dir: Path, kind: str) -> None:
    url = shelve(media_dir, f"{kind}.png", hostile()[kind])
    assert refusal(animator, {"image_url": url})[:2] == (400, "image_url")


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "http://127.0.0.1/x.png", "file:///dev/zero", "data:image/png;base64,AA", 7, {}],
)
def test_pictures_come_from_the_media_folder_only(animator: EngineProcess, url: Any) -> None:
    assert refusal(animator, {"image_url": url})[:2] == (400, "image_url")
    assert animator.health()["status"] == "ready"


def test_an_honest_picture_elsewhere_is_not_read(
    animator: EngineProcess, media_dir: Path, tmp_path: Path
) -> None:
    outside = shelve(tmp_path, "red.png", plain((220, 20, 20)))
    link = media_dir / "way-out.png"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "red.png")
    up = f"{media_dir.as_uri()}/../{tmp_path.relative_to(media_dir.parent)}/red.png"
    for url in (outside, link.as_uri(), up):
        assert refusal(animator, {"image_url": url})[:2] == (400, "image_url")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"offload": "model"}, "another device"),
        ({"offload": "disk"}, "offload"),
        ({"nonsense": 1}, "nonsense"),
        ({"native_fps": 0}, "above 0"),
        ({"native_fps": "8"}, "native_fps"),
    ],
)
def test_wrong_options_end_the_start(short_dir: Path, options: dict[str, Any], words: str) -> None:
    with spawn("video", short_dir, str(demo_model("demo-video")), options=options) as engine:
        assert engine.process.wait(60) == 2
        assert words in engine.process.communicate()[1]


def test_another_kind_of_model_ends_the_start(short_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with spawn("video", short_dir, str(tmp_path)) as engine:
        assert engine.process.wait(60) == 3
        assert "StableDiffusionPipeline" in engine.process.communicate()[1]
