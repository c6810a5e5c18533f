"""The ComfyUI engine against a ComfyUI: what comes of a request, and what the server is asked."""

import io
import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.engines.comfyui_bench import Comfy, begins_with_a_picture, bench, events, picture_of, saved
from tests.engines.process import EngineProcess, eventually, running

PATH, EDITS = "/v1/images/generations", "/v1/images/edits"
SMALL: dict[str, Any] = {"prompt": "a lighthouse", "size": "64x64", "steps": 2}


@pytest.fixture(scope="module")
def comfy() -> Iterator[Comfy]:
    with bench() as found:
        yield found


@pytest.fixture(autouse=True)
def judged(comfy: Comfy) -> Iterator[None]:
    """The double has nothing to say against any request."""
    yield
    if comfy.double:
        comfy.double.reset()
        assert comfy.double.violations == []


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def engine(comfy: Comfy, socket_dir: Path, media: Path) -> Iterator[EngineProcess]:
    with running("comfyui", socket_dir, options=comfy.options(), media=media) as process:
        yield process


@pytest.fixture(scope="module")
def painter(comfy: Comfy, socket_dir: Path, media: Path) -> Iterator[EngineProcess]:
    options = begins_with_a_picture(comfy) | {"max_input_pixels": 256 * 256}
    with running("comfyui", socket_dir, options=options, media=media) as process:
        yield process


def made(engine: EngineProcess, body: dict[str, Any], path: str = PATH) -> dict[str, Any]:
    answer = engine.post(path, body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def pixels(answer: dict[str, Any], place: int = 0) -> bytes:
    return picture_of(answer["data"][place]["b64_json"]).convert("RGB").tobytes()


def test_a_picture_of_the_size_that_was_asked_for(engine: EngineProcess) -> None:
    answer = made(engine, SMALL | {"size": "96x64", "model": engine.name})
    picture = picture_of(answer["data"][0]["b64_json"])
    assert (picture.format, picture.size) == ("PNG", (96, 64))
    assert answer["model"] == engine.name
    assert (answer["size"], answer["output_format"], answer["background"]) == ("96x64", "png", "opaque")
    assert made(engine, SMALL | {"width": 64, "height": 128, "size": "auto"})["size"] == "64x128"


def test_the_same_seed_makes_the_same_picture(engine: EngineProcess) -> None:
    first, again = (made(engine, SMALL | {"seed": 7}) for _ in range(2))
    other = made(engine, SMALL | {"seed": 8})
    assert [each["data"][0]["seed"] for each in (first, again, other)] == [7, 7, 8]
    assert pixels(first) == pixels(again) != pixels(other)


def test_without_a_seed_every_picture_is_new_and_can_be_made_again(engine: EngineProcess) -> None:
    first, other = made(engine, SMALL), made(engine, SMALL | {"seed": -1})
    seeds = [each["data"][0]["seed"] for each in (first, other)]
    assert seeds[0] != seeds[1]
    assert pixels(first) != pixels(other)
    assert pixels(made(engine, SMALL | {"seed": seeds[0]})) == pixels(first)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a ship"},
        {"negative_prompt": "fog"},
        {"steps": 3},
        {"guidance_scale": 2},
        {"scheduler": "ddim"},
    ],
)
def test_every_field_reaches_its_node(engine: EngineProcess, change: dict[str, Any]) -> None:
    body = SMALL | {"seed": 5}
    assert pixels(made(engine, body)) != pixels(made(engine, body | change))


def test_values_arrive_as_they_were_given(engine: EngineProcess, comfy: Comfy) -> None:
    made(
        engine,
        SMALL | {"negative_prompt": "fög\n", "seed": 2**63 - 1, "scheduler": "ddim", "schedule": "karras"},
    )
    graph = comfy.faulty().graphs[-1]
    assert graph["positive"]["inputs"]["text"] == "a lighthouse"
    assert graph["negative"]["inputs"]["text"] == "fög\n"
    wanted = {"seed": 2**63 - 1, "steps": 2, "sampler_name": "ddim", "scheduler": "karras", "cfg": 7.5}
    assert graph["sampler"]["inputs"].items() >= wanted.items()
    assert graph["size"]["inputs"] == {"width": 64, "height": 64, "batch_size": 1}


def test_a_value_of_one_request_is_not_there_in_the_next(engine: EngineProcess, comfy: Comfy) -> None:
    made(engine, SMALL | {"negative_prompt": "fog", "guidance_scale": 3})
    made(engine, SMALL)
    graph = comfy.faulty().graphs[-1]
    assert (graph["negative"]["inputs"]["text"], graph["sampler"]["inputs"]["cfg"]) == ("", 7.5)


@pytest.mark.parametrize("name", ["n", "batch_size"])
def test_several_pictures_in_one_run(engine: EngineProcess, name: str) -> None:
    answer = made(engine, SMALL | {name: 3, "seed": 4})
    assert [each["seed"] for each in answer["data"]] == [4, 4, 4]
    assert len({pixels(answer, place) for place in range(3)}) == 3


@pytest.mark.parametrize(("form", "kind"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_other_formats_are_made_when_asked_for(engine: EngineProcess, form: str, kind: str) -> None:
    answer = made(engine, SMALL | {"output_format": form})
    assert (answer["output_format"], picture_of(answer["data"][0]["b64_json"]).format) == (form, kind)


def test_quality_makes_files_smaller(engine: EngineProcess) -> None:
    body = SMALL | {"seed": 1, "output_format": "jpeg"}
    rough, fine = (made(engine, body | {"output_compression": quality}) for quality in (5, 95))
    assert len(rough["data"][0]["b64_json"]) < len(fine["data"][0]["b64_json"]) / 2


def test_the_workflow_stays_with_the_operator(engine: EngineProcess) -> None:
    raw = b64decode(made(engine, SMALL)["data"][0]["b64_json"])
    assert b"KSampler" not in raw
    with Image.open(io.BytesIO(raw)) as picture:
        picture.load()
        assert not picture.info


def test_progress_is_in_the_list_of_runs(engine: EngineProcess, comfy: Comfy) -> None:
    with engine.sent(PATH, SMALL | {"steps": 100}, "slow"):
        runs = lambda: engine.get("/runs").json()["runs"]  # noqa: E731
        eventually(lambda: any(run["id"] == "slow" and 2 <= run["done"] <= 60 for run in runs()), "progress")
        (run,) = runs()
        assert (run["total"], run["stage"]) == (100, "painting")


def test_health_tells_of_the_server(engine: EngineProcess, comfy: Comfy) -> None:
    health = engine.health()
    assert comfy.url.endswith(health["comfyui"])
    assert health["comfyui_version"]
    assert health["devices"][0]["vram_total"] > 0
    assert {"prompt", "seed", "schedule"} <= set(health["parameters"])


def test_a_stream_shows_pictures_on_the_way(engine: EngineProcess, comfy: Comfy) -> None:
    for old in (False, True) if comfy.double else (False,):
        if comfy.double:
            comfy.double.old_previews = old
        seen = events(engine, PATH, SMALL | {"steps": 8, "seed": 3 + old, "partial_images": 2})
        *partial, last = seen
        assert [event["type"] for event in partial] == ["image_generation.partial_image"] * 2
        assert [event["partial_image_index"] for event in partial] == [0, 1]
        assert {event["output_format"] for event in partial} == {"jpeg"}
        assert picture_of(partial[0]["b64_json"]).format == "JPEG"
        assert (last["type"], last["seed"], last["size"]) == ("image_generation.completed", 3 + old, "64x64")
        assert picture_of(last["b64_json"]).format == "PNG"
        assert last["usage"]["total_tokens"] == 0


def test_a_stream_of_several_pictures_numbers_them(engine: EngineProcess) -> None:
    seen = events(engine, PATH, SMALL | {"n": 2})
    assert [(event["type"], event["index"]) for event in seen] == [
        ("image_generation.completed", 0),
        ("image_generation.completed", 1),
    ]


def test_a_stream_with_a_bad_value_has_a_status(engine: EngineProcess) -> None:
    answer = engine.post(PATH, SMALL | {"stream": True, "scheduler": "magic"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "scheduler")


def test_it_paints_over_a_picture(painter: EngineProcess, comfy: Comfy, media: Path) -> None:
    url = saved(Image.new("RGB", (80, 48), (200, 30, 30)), media / "red.png")
    body = {"prompt": "a ship", "image": url, "seed": 1, "steps": 2}
    whole = made(painter, body | {"denoise_strength": 0.0}, EDITS)
    assert whole["size"] == "80x48"
    if comfy.double:
        assert pixels(whole) == bytes((200, 30, 30)) * (80 * 48)
    assert pixels(made(painter, body | {"strength": 0.9}, EDITS)) != pixels(whole)
    assert pixels(made(painter, {**body, "image": [url], "denoise_strength": 0}, EDITS)) == pixels(whole)
    assert made(painter, body | {"image_url": url, "image": None})["size"] == "80x48"
    seen = events(painter, EDITS, body)
    assert seen[-1]["type"] == "image_edit.completed"


def test_a_mask_says_where(comfy: Comfy, socket_dir: Path, media: Path) -> None:
    """Both kinds of mask: OpenAI's transparency, and a drawing in white."""
    comfy.faulty()
    url = saved(Image.new("RGB", (64, 64), (200, 30, 30)), media / "red.png")
    clear = Image.new("RGBA", (64, 64), "black")
    clear.paste((0, 0, 0, 0), (0, 0, 32, 64))
    drawn = Image.new("L", (64, 64), 0)
    drawn.paste(255, (0, 0, 32, 64))
    body = {"prompt": "a ship", "image": url, "seed": 1, "denoise_strength": 1.0}
    options = begins_with_a_picture(comfy, mask=True)
    with running("comfyui", socket_dir, options=options, media=media) as engine:
        for place, mask in enumerate((clear, drawn)):
            named = saved(mask, media / f"mask{place}.png")
            picture = picture_of(made(engine, body | {"mask": named}, EDITS)["data"][0]["b64_json"])
            assert picture.crop((32, 0, 64, 64)).tobytes() == bytes((200, 30, 30)) * (32 * 64)
            assert len(set(picture.crop((0, 0, 32, 64)).tobytes())) > 100
        nothing = engine.post(EDITS, body | {"mask": saved(Image.new("L", (64, 64)), media / "none.png")})
        assert (nothing.status_code, nothing.json()["error"]["param"]) == (400, "mask")


def error(engine: EngineProcess, body: dict[str, Any], path: str = PATH) -> tuple[int, str | None]:
    answer = engine.post(path, body)
    return answer.status_code, answer.json()["error"]["param"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"scheduler": "magic"}, "scheduler"),
        ({"scheduler": ["ckpt", 0]}, "scheduler"),
        ({"schedule": "simple"}, "schedule"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x" * 40_000}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["positive", 0]}, "prompt"),
        ({"negative_prompt": {"__value__": ["ckpt", 0]}}, "negative_prompt"),
        ({"seed": -2}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"steps": 0}, "steps"),
        ({"steps": 151}, "steps"),
        ({"steps": "20"}, "steps"),
        ({"n": 11}, "n"),
        ({"n": 2, "batch_size": 3}, "batch_size"),
        ({"guidance_scale": 20.5}, "guidance_scale"),
        ({"guidance_scale": "7"}, "guidance_scale"),
        ({"size": "65x64"}, "size"),
        ({"size": "8x64"}, "size"),
        ({"size": "huge"}, "size"),
        ({"size": "4096x4096"}, "size"),
        ({"size": None, "width": 65, "height": 64}, "width"),
        ({"size": "64x64", "width": 96}, "size"),
        ({"size": None, "height": 16384}, "height"),
        ({"quality": "hd"}, "quality"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_compression": 50}, "output_compression"),
        ({"partial_images": 4}, "partial_images"),
        ({"image": "file:///etc/hostname"}, "image"),
        ({"mask": "file:///etc/hostname"}, "mask"),
        ({"denoise_strength": 0.5}, "denoise_strength"),
        ({"controlnet_units": [{"model": "canny"}]}, "controlnet_units"),
        ({"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}}, "workflow"),
        ({"sampler": {"steps": 1}}, "sampler"),
        ({"sampler.steps": 1}, "sampler.steps"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    engine: EngineProcess, comfy: Comfy, change: dict[str, Any], param: str
) -> None:
    seen = len(comfy.double.graphs) if comfy.double else 0
    assert error(engine, SMALL | change) == (400, param)
    assert not comfy.double or len(comfy.double.graphs) == seen
    assert engine.health()["status"] == "ready"


def test_the_legal_values_are_named(engine: EngineProcess) -> None:
    message = engine.post(PATH, SMALL | {"scheduler": "magic"}).json()["error"]["message"]
    assert "euler" in message
    assert "ddim" in message


def test_bad_pictures_are_the_callers_fault(painter: EngineProcess, comfy: Comfy, media: Path) -> None:
    good = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(good, "PNG")
    (media / "cut").write_bytes(good.getvalue()[:-400])
    (media / "empty").write_bytes(b"")
    (media / "text").write_text("<svg onload='x'/>")
    Image.new("1", (300, 300)).save(media / "large.png")
    for name in ("cut", "empty", "text", "large.png"):
        assert error(painter, {"prompt": "x", "image": (media / name).as_uri()}, EDITS) == (400, "image")
    for url in ("file:///etc/hostname", "https://elsewhere/x.png", "red.png", 7, (media / "absent").as_uri()):
        assert error(painter, {"prompt": "x", "image": url}, EDITS) == (400, "image")
    assert error(painter, {"prompt": "x"}, EDITS) == (400, "image")
    assert error(painter, {"prompt": "x"}) == (400, "image")
    two = [saved(Image.new("RGB", (16, 16)), media / "a.png")] * 2
    assert error(painter, {"prompt": "x", "image": two}, EDITS) == (400, "image[1]")


def test_json_of_the_answer_is_plain(engine: EngineProcess) -> None:
    answer = made(engine, SMALL)
    assert set(answer) == {"created", "data", "model", "output_format", "size", "background", "usage"}
    assert json.dumps(answer)
