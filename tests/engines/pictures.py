"""Asking an image engine for pictures, and looking at them."""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageStat

from tests.engines.process import EngineProcess

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
YELLOW, BLUE = (230, 210, 50), (40, 70, 220)
Picture = Image.Image


def decoded(text: str) -> Picture:
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def painted(engine: EngineProcess, prompt: str, *, path: str = GENERATIONS, **more: Any) -> list[Picture]:
    response = engine.post(path, {"prompt": prompt, "seed": 7, **more})
    assert response.status_code == 200, response.text
    return [decoded(entry["b64_json"]) for entry in response.json()["data"]]


def one(engine: EngineProcess, prompt: str, **more: Any) -> Picture:
    (picture,) = painted(engine, prompt, **more)
    return picture


def refused(engine: EngineProcess, body: dict[str, Any], path: str = GENERATIONS) -> tuple[int, str, str]:
    """Status, parameter and code of a refusal."""
    response = engine.post(path, {"prompt": "red", "steps": 1} | body)
    assert response.status_code >= 400, response.text
    error = response.json()["error"]
    return response.status_code, error["param"], error["code"]


def mean(picture: Picture) -> list[float]:
    return list(ImageStat.Stat(picture.convert("RGB")).mean)


def distance(left: Picture, right: Picture) -> float:
    """Mean absolute difference of two pictures, 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(left.convert("RGB"), right.convert("RGB"))).mean) / 3


def furthest(left: Picture, right: Picture) -> int:
    """The largest difference of any pixel."""
    extrema = ImageChops.difference(left.convert("RGB"), right.convert("RGB")).getextrema()
    return max(int(high) for _, high in extrema)  # type: ignore[misc]


def stored(picture: Picture, folder: Path, name: str) -> str:
    """Save a picture and return its URL."""
    picture.save(folder / name)
    return (folder / name).as_uri()


def scene(size: tuple[int, int] = (64, 64)) -> Picture:
    """A blue square in the middle of yellow."""
    width, height = size
    picture = Image.new("RGB", size, YELLOW)
    box = (width // 4, height // 4, width * 3 // 4 - 1, height * 3 // 4 - 1)
    ImageDraw.Draw(picture).rectangle(box, fill=BLUE)
    return picture
