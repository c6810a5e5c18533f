"""The answers of the image endpoints: OpenAI's object and its stream events, with pictures as base64."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any

from PIL import Image

from workers.engines import encoding
from workers.engines.image_api import named_event
from workers.engines.imaging.encode import described, encoded
from workers.engines.imaging.request import Ask
from workers.engines.imaging.studio import TEXT, Item

Picture = Image.Image


def facts(item: Item, model: str) -> dict[str, object]:
    """What a picture was made with, in the names that readers of such texts know."""
    settings = item.settings
    found: dict[str, object] = {
        "Steps": settings.steps,
        "Sampler": settings.scheduler or "default",
        "CFG scale": settings.guidance,
        "Seed": item.seed,
        "Size": f"{settings.width}x{settings.height}",
        "Model": model,
    }
    if settings.mode != TEXT:
        found["Denoising strength"] = settings.strength
    if item.mask is not None:
        found["Mask"] = "yes"
    if settings.clip_skip:
        found["Clip skip"] = settings.clip_skip + 1  # that field counts layers from the end, beginning with 1
    for number, control in enumerate(settings.controls):
        parts = f"Model: {control.model}, Weight: {control.weight}"
        found[f"ControlNet {number}"] = (
            f'"{parts}, Guidance Start: {control.start}, Guidance End: {control.end}"'
        )
    return found


class Writer:
    """Writes the answer to one request."""

    def __init__(self, ask: Ask, items: Sequence[Item], model: str, tokens: int, event: str) -> None:
        self.ask, self.items, self.model, self.event = ask, items, model, event
        settings = items[0].settings
        self.made = {"output_format": ask.form.name, "size": f"{settings.width}x{settings.height}"}
        self.made |= {"background": "opaque"}
        details = {"text_tokens": tokens, "image_tokens": 0}
        self.usage: dict[str, Any] = {"input_tokens": tokens, "input_tokens_details": details}
        self.usage |= {"output_tokens": 0, "total_tokens": tokens}

    def file(self, picture: Picture, item: Item) -> str:
        text = described(item.prompt, item.negative, facts(item, self.model))
        return base64.b64encode(encoded(picture, self.ask.form, text)).decode()

    def body(self, pictures: Sequence[Picture]) -> bytes:
        data = [
            {"b64_json": self.file(picture, item), "seed": item.seed}
            for picture, item in zip(pictures, self.items, strict=True)
        ]
        return encoding.dumps(
            {"created": int(time.time()), "data": data, "model": self.model, **self.made, "usage": self.usage}
        )

    def partial(self, place: int, number: int, picture: Picture) -> bytes:
        shown = base64.b64encode(encoded(picture, self.ask.form)).decode()
        return self._event("partial_image", place, {"b64_json": shown, "partial_image_index": number})

    def completed(self, place: int, picture: Picture) -> bytes:
        item = self.items[place]
        return self._event(
            "completed", place, {"b64_json": self.file(picture, item), "seed": item.seed, "usage": self.usage}
        )

    def _event(self, kind: str, place: int, facts: dict[str, Any]) -> bytes:
        return named_event(f"{self.event}.{kind}", self.model, place, {**self.made, **facts})
