"""From a request to the items of the batching window: opening pictures, fixing the size, sharing the progress.

Runs in a thread beside the model's. Must not know pipelines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from PIL import Image

from workers.engines.failures import BadRequest, ContextLengthExceeded
from workers.engines.image_api import MOST_SEED
from workers.engines.imaging import masks
from workers.engines.imaging.control import hint
from workers.engines.imaging.prompts import MOST_WINDOWS, Prompts
from workers.engines.imaging.request import Ask, Reader
from workers.engines.imaging.studio import MASK, PICTURE, TEXT, Item, Settings, Watch
from workers.engines.pictures import open_picture, read_picture

Picture = Image.Image
Preview = Callable[[int, int, Picture], None]


@dataclass
class Progress:
    """Steps of all pictures of one request, reported as one number."""

    report: Callable[[float, float], None]
    count: int
    done: dict[int, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def step(self, place: int, done: int, total: int) -> None:
        with self.lock:
            self.done[place] = done
            self.report(sum(self.done.values()), total * self.count)


def items_of(
    ask: Ask, reader: Reader, prompts: Prompts, progress: Progress, preview: Preview | None, *, cut: bool
) -> list[Item]:
    """One item for each picture asked for. Raises BadRequest."""
    source, mask = pictures(ask, reader)
    width, height = ask.width, ask.height
    if source is not None and not width:
        multiple = reader.able.multiple
        width, height = (side // multiple * multiple for side in source.size)
        reader.check_size(width, height, param=ask.source_param)
    if source is not None and source.size != (width, height):
        source = source.resize((width, height), Image.Resampling.LANCZOS)
    if mask is not None and mask.size != (width, height):
        mask = mask.resize((width, height), Image.Resampling.NEAREST)
    hints = tuple(hint(unit, width, height, reader.limits.input_pixels) for unit in ask.units)
    settings = Settings(
        mode=TEXT if source is None else PICTURE if mask is None else MASK,
        width=width,
        height=height,
        steps=ask.steps,
        guidance=ask.guidance,
        true_guidance=ask.true_guidance,
        scheduler=ask.scheduler,
        clip_skip=ask.clip_skip,
        strength=ask.strength,
        controls=tuple(unit.control for unit in ask.units),
        windows=windows_of(ask, prompts, cut=cut),
        negated=bool(ask.negative),
    )
    first = Item(settings, ask.prompt, ask.negative, ask.seed, source, mask, hints)
    return [
        replace(first, seed=seed_of(ask, place), watch=watch(place, ask, progress, preview))
        for place in range(ask.count)
    ]


def seed_of(ask: Ask, place: int) -> int:
    return (ask.seed + place) % (MOST_SEED + 1)


def pictures(ask: Ask, reader: Reader) -> tuple[Picture | None, Picture | None]:
    """The picture to start from and its mask, of the same size."""
    if ask.source is None:
        return None, None
    most = reader.limits.input_pixels
    source = read_picture(ask.source, ask.source_param, most)
    if ask.mask is None:
        return source, None
    mask = open_picture(ask.mask, "mask", most)
    if mask.size != source.size:
        raise BadRequest(
            f"'mask' is {mask.width}x{mask.height}, but the picture {source.width}x{source.height}.",
            param="mask",
        )
    return source, masks.repainted(mask, "mask")


def windows_of(ask: Ask, prompts: Prompts, *, cut: bool) -> int:
    """How many windows of the text encoder the prompts take. Raises ContextLengthExceeded."""
    for param, text in (("prompt", ask.prompt), ("negative_prompt", ask.negative)):
        most = MOST_WINDOWS if prompts.windowed else 1
        if not cut and prompts.windows(text) > most:
            raise ContextLengthExceeded(
                f"'{param}' has {prompts.tokens(text)} tokens, more than this model's text encoder reads.",
                param=param,
            )
    found = prompts.windows(ask.prompt, ask.negative) if prompts.windowed else 1
    return min(found, 1 if cut else MOST_WINDOWS)


def watch(place: int, ask: Ask, progress: Progress, preview: Preview | None) -> Watch:
    def step(done: int, total: int) -> None:
        progress.step(place, done, total)

    def show(number: int, picture: Picture) -> None:
        if preview is not None:
            preview(place, number, picture)

    return Watch(step, ask.previews if preview is not None else 0, show)
