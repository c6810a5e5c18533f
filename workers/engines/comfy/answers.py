"""The answers of the image endpoints: OpenAI's object and its stream events, with pictures as base64."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workers.engines import encoding
from workers.engines.comfy.pictures import Shown
from workers.engines.image_api import named_event

# ComfyUI counts no tokens; OpenAI's clients want the object.
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


@dataclass(frozen=True)
class Writer:
    """Writes the answer to one request. `event` is `image_generation` or `image_edit`."""

    model: str
    event: str
    seed: int | None

    def body(self, pictures: Sequence[Shown]) -> bytes:
        data = [{"b64_json": base64_of(picture), **self._seed()} for picture in pictures]
        head = {"created": int(time.time()), "data": data, "model": self.model}
        return encoding.dumps({**head, **facts(pictures[0]), "usage": USAGE})

    def partial(self, number: int, picture: Shown) -> bytes:
        return self._event("partial_image", 0, picture, {"partial_image_index": number})

    def completed(self, place: int, picture: Shown) -> bytes:
        return self._event("completed", place, picture, {**self._seed(), "usage": USAGE})

    def _seed(self) -> dict[str, int]:
        return {} if self.seed is None else {"seed": self.seed}

    def _event(self, kind: str, place: int, picture: Shown, more: dict[str, Any]) -> bytes:
        told = {**facts(picture), "b64_json": base64_of(picture), **more}
        return named_event(f"{self.event}.{kind}", self.model, place, told)


def facts(picture: Shown) -> dict[str, str]:
    return {
        "output_format": picture.form,
        "size": f"{picture.width}x{picture.height}",
        "background": "opaque" if picture.opaque else "transparent",
    }


def base64_of(picture: Shown) -> str:
    return base64.b64encode(picture.content).decode()
