"""The image engine: text to image, its fields, files and answers."""

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.engines.pictures import GENERATIONS, decoded, distance, furthest, mean, one, painted, refused
from tests.engines.process import EngineProcess

CHANNELS = {"red": 0, "green": 1, "blue": 2}


@pytest.mark.parametrize("colour", CHANNELS)
def test_it_paints_the_colour_that_the_prompt_names(image: EngineProcess, colour: str) -> None:
    shares = mean(one(image, f"a {colour} picture"))
    assert shares.index(max(shares)) == CHANNELS[colour]
    assert max(shares) > 150


def test_the_negative_prompt_pushes_away(image: EngineProcess) -> None:
    plain = mean(one(image, "a white picture", guidance_scale=4))
    without = mean(one(image, "a white picture", negative_prompt="a red picture", guidance_scale=4))
    assert without[0] < plain[0] - 20


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, (64, 64)),
        ({"size": "auto"}, (64, 64)),
        ({"size": "96x40"}, (96, 40)),
        ({"width": 48, "height": 80}, (48, 80)),
        ({"width": 48, "size": "48x80"}, (48, 80)),
        ({"width": 128}, (128, 64)),
    ],
)
def test_sizes(image: EngineProcess, asked: dict[str, Any], size: tuple[int, int]) -> None:
    response = image.post(GENERATIONS, {"prompt": "red", "steps": 2} | asked)
    assert decoded(response.json()["data"][0]["b64_json"]).size == size
    assert response.json()["size"] == f"{size[0]}x{size[1]}"


def test_a_seed_gives_the_same_picture_alone_and_among_eight(image: EngineProcess) -> None:
    together = painted(image, "green paint", n=8, seed=100, scheduler="euler_a")
    for place, picture in enumerate(together):
        alone = one(image, "green paint", seed=100 + place, scheduler="euler_a")
        assert furthest(alone, picture) <= 1
    assert min(distance(together[0], other) for other in together[1:]) > 1


def test_another_prompt_or_seed_gives_another_picture(image: EngineProcess) -> None:
    first = one(image, "red paint")
    assert furthest(first, one(image, "red paint")) == 0
    assert distance(first, one(image, "red paint", seed=8)) > 1
    assert distance(first, one(image, "blue paint")) > 20


def test_a_seed_that_was_chosen_is_told(image: EngineProcess) -> None:
    first = image.post(GENERATIONS, {"prompt": "red"}).json()["data"][0]
    second = image.post(GENERATIONS, {"prompt": "red", "seed": -1}).json()["data"][0]
    assert first["seed"] != second["seed"]
    again = image.post(GENERATIONS, {"prompt": "red", "seed": first["seed"]}).json()["data"][0]
    assert again["b64_json"] == first["b64_json"]


def test_the_answer_has_the_shape_of_openai(image: EngineProcess) -> None:
    body = {"prompt": "red", "batch_size": 2, "seed": 5, "response_format": "url", "quality": "auto"}
    answer = image.post(GENERATIONS, body).json()
    assert [entry["seed"] for entry in answer["data"]] == [5, 6]
    assert all(set(entry) == {"b64_json", "seed"} for entry in answer["data"])
    assert (answer["model"], answer["output_format"], answer["background"]) == (image.name, "png", "opaque")
    assert answer["usage"]["input_tokens"] == answer["usage"]["total_tokens"] == 1
    assert answer["created"] > 1_700_000_000


def user_comment(picture: Any) -> str:
    raw = picture.getexif().get_ifd(0x8769)[0x9286]
    assert raw.startswith(b"UNICODE\x00")
    return str(raw[8:].decode("utf-16-be"))


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_the_file_tells_how_it_was_made(image: EngineProcess, form: str) -> None:
    more = {"negative_prompt": "blur, 模糊", "scheduler": "Euler a", "cfg_scale": 3.5, "size": "64x48"}
    picture = one(image, "a red picture\nof paint", output_format=form, num_inference_steps=4, **more)
    assert picture.format == form.upper()
    text = picture.info["parameters"] if form == "png" else user_comment(picture)
    prompt, negative, facts = text.rsplit("\n", 2)
    assert (prompt, negative) == ("a red picture\nof paint", "Negative prompt: blur, 模糊")
    found = dict(pair.split(": ") for pair in facts.split(", "))
    assert found == {
        "Steps": "4",
        "Sampler": "euler_a",
        "CFG scale": "3.5",
        "Seed": "7",
        "Size": "64x48",
        "Model": image.name,
    }


def test_a_lower_quality_gives_a_smaller_file(image: EngineProcess) -> None:
    def size(quality: int) -> int:
        body = {"prompt": "red", "seed": 1, "output_format": "jpeg", "output_compression": quality}
        return len(base64.b64decode(image.post(GENERATIONS, body).json()["data"][0]["b64_json"]))

    assert size(5) < size(100) * 0.8


def test_every_scheduler_paints(image: EngineProcess) -> None:
    names = image.health()["schedulers"]
    assert {"ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm", "pndm"} <= set(names)
    seen = {name: one(image, "green paint", scheduler=name.upper(), steps=8).tobytes() for name in names}
    assert len(set(seen.values())) >= len(names) - 2
    for name in names:
        shares = mean(one(image, "green paint", scheduler=name, steps=8))
        assert shares[1] > shares[0] + 30, name


def test_steps_guidance_and_clip_skip_change_the_picture(image: EngineProcess) -> None:
    plain = one(image, "purple paint")
    for more in ({"steps": 3}, {"guidance_scale": 6.0}, {"clip_skip": 1}):
        assert furthest(plain, one(image, "purple paint", **more)) > 2, more
    assert furthest(plain, one(image, "purple paint", clip_skip=0)) == 0


def test_a_prompt_longer_than_the_text_encoder_is_read_to_its_end(image: EngineProcess) -> None:
    filling = "a picture in the square of paint, " * 4
    long_red, long_blue = (one(image, f"{filling} {colour}") for colour in ("red", "blue"))
    assert distance(long_red, long_blue) > 2
    assert refused(image, {"prompt": "red " * 5000}) == (400, "prompt", "context_length_exceeded")


def test_requests_that_arrive_together_share_runs(image: EngineProcess) -> None:
    before = image.health()
    colours = ["red", "green", "blue", "white"] * 2
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda colour: one(image, colour), colours))
    after = image.health()
    assert after["items"] - before["items"] == 8
    assert after["batches"] - before["batches"] <= 4
    for colour, picture in zip(colours, pictures, strict=True):
        assert furthest(picture, one(image, colour)) <= 1


def test_more_pictures_than_a_run_takes_come_in_order(image: EngineProcess) -> None:
    answer = image.post(GENERATIONS, {"prompt": "red", "n": 10, "seed": 30, "steps": 2}).json()
    assert [entry["seed"] for entry in answer["data"]] == list(range(30, 40))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": "x" * 40_000}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"n": 2, "batch_size": 3}, "batch_size"),
        ({"size": "64"}, "size"),
        ({"size": "65x64"}, "size"),
        ({"width": 65}, "width"),
        ({"height": 0}, "height"),
        ({"size": "64x64", "width": 72}, "size"),
        ({"width": 2048, "height": 2056}, "width"),
        ({"width": 80_000, "height": 8}, "width"),
        ({"steps": 151}, "steps"),
        ({"steps": 5, "num_inference_steps": 6}, "num_inference_steps"),
        ({"guidance_scale": -1}, "guidance_scale"),
        ({"guidance_scale": 5, "cfg_scale": 6}, "cfg_scale"),
        ({"scheduler": "magic"}, "scheduler"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"clip_skip": 9}, "clip_skip"),
        ({"denoise_strength": 0.5}, "denoise_strength"),
        ({"strength": 0.5}, "strength"),
        ({"true_cfg_scale": 3}, "true_cfg_scale"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_format": "png", "output_compression": 50}, "output_compression"),
        ({"output_compression": 101}, "output_compression"),
        ({"response_format": "file"}, "response_format"),
        ({"quality": "hd"}, "quality"),
        ({"style": "vivid"}, "style"),
        ({"background": "transparent"}, "background"),
        ({"partial_images": 4, "stream": True}, "partial_images"),
        ({"mask": "file:///x.png"}, "mask"),
    ],
)
def test_wrong_bodies_name_their_field(image: EngineProcess, body: dict[str, Any], param: str) -> None:
    assert refused(image, body)[:2] == (400, param)
