"""The image engine with pictures to start from: image to image, masks, ControlNets, and files that lie."""

import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw

from tests.engines.pictures import (
    EDITS,
    GENERATIONS,
    distance,
    furthest,
    mean,
    one,
    painted,
    refused,
    scene,
    stored,
)
from tests.engines.process import ENVIRONMENT, ROOT, EngineProcess, engines_python

HALVES = (0, 0, 32, 64), (32, 0, 64, 64)


def test_a_low_strength_keeps_the_picture_and_a_high_one_does_not(
    image: EngineProcess, image_media: Path
) -> None:
    source = scene()
    url = stored(source, image_media, "scene.png")
    far = [
        distance(source, one(image, "green paint", image_url=url, denoise_strength=strength, steps=20))
        for strength in (0, 0.05, 0.3, 1)
    ]
    assert far[0] == 0
    assert far[1] < 25
    assert far == sorted(far)
    assert far[3] > 80


def test_a_source_decides_the_size(image: EngineProcess, image_media: Path) -> None:
    url = stored(scene((83, 50)), image_media, "odd.png")
    assert one(image, "red", image=url).size == (80, 48)
    assert one(image, "red", image=url, size="64x32").size == (64, 32)
    assert refused(image, {"image": url, "width": 64})[:2] == (400, "height")
    tiny = stored(scene((7, 50)), image_media, "tiny.png")
    assert refused(image, {"image": tiny})[:2] == (400, "image")


def test_a_source_is_turned_upright_and_flattened(image: EngineProcess, image_media: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    scene((48, 32)).save(image_media / "turned.jpg", exif=exif)
    assert one(image, "red", image=(image_media / "turned.jpg").as_uri()).size == (32, 48)
    clear = stored(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), image_media, "clear.png")
    assert mean(one(image, "red", image=clear, strength=0)) == [255, 255, 255]


@pytest.mark.parametrize("form", ["transparent", "white"])
def test_outside_the_mask_nothing_changes(image: EngineProcess, image_media: Path, form: str) -> None:
    source = scene()
    url = stored(source, image_media, "kept.png")
    mask = Image.new("RGBA", (64, 64), "white") if form == "transparent" else Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((32, 0, 63, 63), fill=(0, 0, 0, 0) if form == "transparent" else 255)
    answer = one(image, "red paint", path=EDITS, image=[url], mask=stored(mask, image_media, "mask.png"))
    kept, changed = (answer.crop(half) for half in HALVES)
    assert ImageChops.difference(kept, source.crop(HALVES[0])).getbbox() is None
    shares = mean(changed)
    assert shares.index(max(shares)) == 0
    assert distance(changed, source.crop(HALVES[1])) > 50


def test_an_edit_without_a_mask_repaints_the_whole(image: EngineProcess, image_media: Path) -> None:
    url = stored(scene(), image_media, "edit.png")
    generated = one(image, "red paint", image_url=url)
    assert furthest(one(image, "red paint", path=EDITS, image=url), generated) == 0


def test_wrong_edits_name_their_field(image: EngineProcess, image_media: Path) -> None:
    url = stored(scene(), image_media, "right.png")
    small = stored(Image.new("L", (32, 32), 255), image_media, "small.png")
    opaque = stored(Image.new("L", (64, 64), 0), image_media, "opaque.png")
    for body, param in (
        ({}, "image"),
        ({"image": []}, "image"),
        ({"image": [url, url]}, "image"),
        ({"image": url, "mask": small}, "mask"),
        ({"image": url, "mask": opaque}, "mask"),
        ({"image": url, "denoise_strength": 1.5}, "denoise_strength"),
        ({"image": url, "denoise_strength": 0.5, "strength": 0.6}, "strength"),
    ):
        assert refused(image, body, EDITS)[:2] == (400, param), body


def unit(url: str, **more: Any) -> dict[str, Any]:
    return {"input_image": url, "module": "canny", "model": "edges", **more}


@pytest.mark.parametrize("mode", ["text", "picture"])
def test_control_changes_the_picture(image: EngineProcess, image_media: Path, mode: str) -> None:
    url = stored(scene(), image_media, "edges.png")
    start = {"image_url": url, "denoise_strength": 0.9} if mode == "picture" else {}

    def controlled(*units: dict[str, Any]) -> Any:
        return one(image, "white paint", controlnet_units=list(units), **start)

    plain, single = one(image, "white paint", **start), controlled(unit(url))
    assert distance(plain, single) > 1
    assert furthest(plain, controlled(unit(url, weight=0))) <= 1
    assert furthest(plain, controlled(unit(url, enabled=False))) == 0
    late = controlled(unit(url, guidance_start=0.8))
    assert 0 < distance(plain, late) < distance(plain, single)
    double = controlled(unit(url), unit(url, module="invert", weight=0.5))
    assert distance(double, single) > 1


def test_control_reads_its_picture(image: EngineProcess, image_media: Path) -> None:
    """Halves, because the norms of the network take an even shade away."""
    urls = []
    for name, half in zip(("left", "right"), HALVES, strict=True):
        picture = Image.new("RGB", (64, 64))
        picture.paste("white", half)
        urls.append(stored(picture, image_media, f"{name}.png"))
    left, right = (one(image, "red", controlnet_units=[unit(url, module="none")]) for url in urls)
    assert furthest(left, right) > 5
    turned = one(image, "red", controlnet_units=[unit(urls[0], module="invert")])
    assert furthest(turned, right) <= 1


def test_control_of_several_pictures_is_that_of_each(image: EngineProcess, image_media: Path) -> None:
    units = [
        unit(stored(scene(), image_media, "batch.png")),
        unit(stored(scene((32, 32)), image_media, "b.png")),
    ]
    together = painted(image, "red paint", controlnet_units=units, n=3, seed=50)
    for place, picture in enumerate(together):
        assert furthest(picture, one(image, "red paint", controlnet_units=units, seed=50 + place)) <= 1


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"model": "nobody"}, "model"),
        ({"module": "nothing"}, "module"),
        ({"module": "openpose"}, "module"),
        ({"weight": 3}, "weight"),
        ({"guidance_start": 0.6, "guidance_end": 0.5}, "guidance_start"),
        ({"input_image": "https://example.org/a.png"}, "input_image"),
        ({"input_image": None}, "input_image"),
        ({"low_threshold": 200, "high_threshold": 100}, "low_threshold"),
        ({"control_mode": "ControlNet is more important"}, "control_mode"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_units_name_their_field(
    image: EngineProcess, image_media: Path, wrong: dict[str, Any], param: str
) -> None:
    url = stored(scene(), image_media, "unit.png")
    units = [unit(url), unit(url) | wrong]
    assert refused(image, {"controlnet_units": units})[:2] == (400, f"controlnet_units[1].{param}")
    assert refused(image, {"controlnet_units": [unit(url)] * 5})[:2] == (400, "controlnet_units")


@pytest.mark.parametrize("more", [{"processor_res": 1024}, {"processor_res": 4096}, {}])
def test_a_long_picture_does_not_grow_without_bound(
    image: EngineProcess, image_media: Path, more: dict[str, int]
) -> None:
    """Scaled by its shorter side to 4,096, this one would have 204,800 by 4,096 pixels."""
    url = stored(scene((1000, 20)), image_media, "long.png")
    body = {"size": "1024x1024", "controlnet_units": [unit(url, module="invert"), unit(url, **more)]}
    assert refused(image, body)[:2] == (400, "controlnet_units[1].processor_res")
    assert one(image, "red", controlnet_units=[unit(url, processor_res=64)]).size == (64, 64)


CANNY = """
import sys
from pathlib import Path
from workers.engines.imaging.control import Control, Unit, hint
unit = Unit(Control("m", 1, 0, 1), Path(sys.argv[1]), "p", "canny", 100, 200, 0)
hint(unit, 64, 64, 10**6).save(sys.argv[2])
"""


def test_canny_finds_the_border_of_a_square(tmp_path: Path) -> None:
    scene().save(tmp_path / "square.png")
    argv = [engines_python(), "-c", CANNY, str(tmp_path / "square.png"), str(tmp_path / "edges.png")]
    subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    edges = Image.open(tmp_path / "edges.png").convert("L")
    white = {(x, y) for x in range(64) for y in range(64) if edges.getpixel((x, y))}
    assert 100 < len(white) < 200
    assert all(min(abs(x - 15.5), abs(x - 47.5), abs(y - 15.5), abs(y - 47.5)) < 2 for x, y in white)
    assert {y for _, y in white} >= set(range(18, 46))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(side: int) -> bytes:
    """A small file that unpacks to side times side pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    row = zlib.compress(b"\0" * (side + 1) * 64)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def hostile_files(folder: Path) -> dict[str, bytes]:
    scene().save(folder / "whole.png")
    scene((200, 200)).save(folder / "whole.jpg")
    png, jpeg = (folder / "whole.png").read_bytes(), (folder / "whole.jpg").read_bytes()
    return {
        "empty.png": b"",
        "text.png": b"this is no picture",
        "short.png": png[: len(png) // 2],
        "short.jpg": jpeg[: len(jpeg) // 2],
        "head.png": png[:30],
        "bomb.png": huge_png(30_000),
        "large.png": huge_png(5_000),
        "damaged.png": png[:60] + bytes(40) + png[100:],
        "vector.svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "noise.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(range(256)),
        "zero.bmp": b"BM" + bytes(52),
    }


def test_hostile_files_are_refused_and_the_engine_lives(image: EngineProcess, image_media: Path) -> None:
    for name, content in hostile_files(image_media).items():
        (image_media / name).write_bytes(content)
        url = (image_media / name).as_uri()
        for body, path in (
            ({"image": url}, GENERATIONS),
            ({"image": (image_media / "whole.png").as_uri(), "mask": url}, EDITS),
            ({"controlnet_units": [unit(url)]}, GENERATIONS),
        ):
            assert refused(image, body, path)[0] == 400, (name, path)
    assert one(image, "red").size == (64, 64)


def test_other_paths_are_refused(image: EngineProcess, image_media: Path, tmp_path: Path) -> None:
    outside = stored(scene(), tmp_path, "outside.png")
    (image_media / "link.png").symlink_to(tmp_path / "outside.png")
    inside = image_media.as_uri()
    for url in (
        outside,
        f"{inside}/link.png",
        f"{inside}/../outside.png",
        inside,
        f"{inside}/none.png",
        7,
        ["x"],
        {},
    ):
        assert refused(image, {"image": url})[:2] == (400, "image"), url
