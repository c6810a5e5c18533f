"""The manual's calls for pictures: from a text, from a picture, guided by edges, and repainted in parts."""

import base64
import io
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image, ImageChops, ImageDraw

from tests.e2e.manual.gallery import Gallery
from tests.e2e.manual.names import EDGES, PAINTER
from tests.engines.pictures import Picture, decoded, distance, furthest, mean, scene

ANEW = {"Cache-Control": "no-store"}
"""Without it the same request with the same seed is answered from the cache."""


def answered(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return dict(response.json())


def opened(url: str) -> Picture:
    """The picture behind a link, which needs no key."""
    with httpx2.Client(timeout=60) as anybody:
        response = anybody.get(url)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    return Image.open(io.BytesIO(response.content)).convert("RGB")


def painted(http: httpx2.Client, prompt: str, **more: Any) -> Picture:
    body = {"model": PAINTER, "prompt": prompt, "batch_size": 1, "steps": 10, "seed": 1234} | more
    (entry,) = answered(http.post("images/generations", json=body, headers=ANEW))["data"]
    return opened(entry["url"])


def png(picture: Picture) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize("prefix", ["/openai/v1", "/v1"])
def test_a_picture_of_a_text(http: httpx2.Client, prefix: str) -> None:
    body = {
        "model": PAINTER,
        "prompt": "a blue picture",
        "batch_size": 1,
        "width": 96,
        "height": 64,
        "steps": 20,
        "seed": 42,
    }
    answer = answered(http.post(http.base_url.join(f"{prefix}/images/generations"), json=body))
    picture = opened(answer["data"][0]["url"])
    assert picture.size == (96, 64)
    shares = mean(picture)
    assert shares.index(max(shares)) == 2
    assert max(shares) > 150


def test_a_seed_is_a_picture(http: httpx2.Client) -> None:
    first, again, other = (painted(http, "green paint", width=64, height=64, seed=seed) for seed in (5, 5, 6))
    assert furthest(first, again) <= 1
    assert distance(first, other) > 1


def test_several_pictures_of_one_request(http: httpx2.Client) -> None:
    body = {
        "model": PAINTER,
        "prompt": "red paint",
        "batch_size": 3,
        "seed": 50,
        "steps": 10,
        "size": "64x64",
    }
    entries = answered(http.post("images/generations", json=body))["data"]
    assert len({entry["url"] for entry in entries}) == 3
    alone = painted(http, "red paint", seed=51, size="64x64")
    assert furthest(opened(entries[1]["url"]), alone) <= 1


def test_a_link_opens_for_nobody_who_changes_it(http: httpx2.Client) -> None:
    body = {"model": PAINTER, "prompt": "red", "seed": 3, "steps": 1, "size": "64x64"}
    url = httpx2.URL(answered(http.post("images/generations", json=body))["data"][0]["url"])
    with httpx2.Client(timeout=60) as anybody:
        assert anybody.get(url.copy_set_param("expires", "9999999999")).status_code == 403
        assert anybody.get(url.copy_with(query=None)).status_code == 401


def test_the_client_gets_base64(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        model=PAINTER,
        prompt="a red picture",
        size="64x64",  # type: ignore[arg-type]
        response_format="b64_json",
        extra_body={"seed": 8, "steps": 20},
    )
    assert answer.data
    (entry,) = answer.data
    assert entry.url is None
    shares = mean(decoded(entry.b64_json or "").convert("RGB"))
    assert shares.index(max(shares)) == 0


def test_a_picture_from_a_picture_on_the_web(http: httpx2.Client, pictures: Gallery) -> None:
    source = scene()
    start = {"image_url": pictures.show("scene.png", png(source)), "steps": 20}
    near = painted(http, "green paint", denoise_strength=0.05, **start)
    changed = painted(http, "green paint", denoise_strength=0.7, **start)
    anew = painted(http, "green paint", denoise_strength=1.0, **start)
    assert near.size == source.size
    assert distance(source, near) < 25
    assert distance(source, near) < distance(source, changed) < distance(source, anew)
    assert mean(anew)[1] > mean(source)[1]


def test_edges_guide_a_picture(http: httpx2.Client, pictures: Gallery) -> None:
    unit = {
        "input_image": pictures.show("edges.png", png(scene())),
        "module": "canny",
        "model": EDGES,
        "weight": 1.0,
        "guidance_start": 0.0,
        "guidance_end": 1.0,
    }
    size = {"width": 64, "height": 64, "steps": 15}
    plain = painted(http, "white paint", **size)
    guided = painted(http, "white paint", controlnet_units=[unit], **size)
    ignored = painted(http, "white paint", controlnet_units=[unit | {"weight": 0.0}], **size)
    late = painted(http, "white paint", controlnet_units=[unit | {"guidance_start": 0.8}], **size)
    assert distance(plain, guided) > 1
    assert furthest(plain, ignored) <= 1
    assert 0 < distance(plain, late) < distance(plain, guided)


def test_two_units_guide_together(http: httpx2.Client) -> None:
    inline = f"data:image/png;base64,{base64.b64encode(png(scene())).decode()}"
    unit = {"input_image": inline, "module": "canny", "model": EDGES}
    single = painted(http, "white paint", controlnet_units=[unit], size="64x64")
    other = unit | {"module": "invert", "weight": 0.5}
    assert distance(single, painted(http, "white paint", controlnet_units=[unit, other], size="64x64")) > 1


def test_a_part_is_repainted(client: openai.OpenAI) -> None:
    """The right half is transparent in the mask, so nothing of the left one may change."""
    source, mask = scene(), Image.new("RGBA", (64, 64), "white")
    ImageDraw.Draw(mask).rectangle((32, 0, 63, 63), fill=(0, 0, 0, 0))
    answer = client.images.edit(
        model=PAINTER,
        image=("scene.png", png(source), "image/png"),
        mask=("mask.png", png(mask), "image/png"),
        prompt="red paint",
        extra_body={"seed": 4, "steps": 20},
    )
    assert answer.data
    repainted = opened(answer.data[0].url or "")
    left, right = (0, 0, 32, 64), (32, 0, 64, 64)
    assert ImageChops.difference(repainted.crop(left), source.crop(left)).getbbox() is None
    assert distance(repainted.crop(right), source.crop(right)) > 50
    shares = mean(repainted.crop(right))
    assert shares.index(max(shares)) == 0


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"width": 1024, "height": 1024}, "size"),
        ({"steps": 1000}, "steps"),
        ({"denoise_strength": 2}, "denoise_strength"),
        ({"image_url": "https://127.0.0.1:9/none.png"}, "image_url"),
        ({"image_url": "https://example.com/input.png"}, "image_url"),
        ({"controlnet_units": [{"model": "nobody", "module": "canny"}]}, "controlnet_units[0].input_image"),
    ],
)
def test_what_is_wrong_is_named(http: httpx2.Client, wrong: dict[str, Any], param: str) -> None:
    response = http.post("images/generations", json={"model": PAINTER, "prompt": "red"} | wrong)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
