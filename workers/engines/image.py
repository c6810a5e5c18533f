"""The image engine: `/v1/images/generations` and `/v1/images/edits` on diffusers.

It reads a folder with `model_index.json`, a folder with one file of weights, or such a file; of a file, option `config`
or the folder of the same name beside it has the configurations and the tokenizer. Requests that differ only in prompt,
seed and pictures run as one batch. All options and their defaults stand in `workers.engines.imaging.options`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image

from workers.engines import encoding
from workers.engines.asgi import Call, EngineApp, Handler, Reply, Stream
from workers.engines.base import Engine, main
from workers.engines.device import prepare
from workers.engines.failures import EngineFault
from workers.engines.fields import Fields
from workers.engines.imaging import schedulers
from workers.engines.imaging.answers import Writer
from workers.engines.imaging.options import ImageOptions, read_options
from workers.engines.imaging.parts import in_parts
from workers.engines.imaging.request import EDITS, GENERATIONS, Abilities, Ask, Defaults, Reader
from workers.engines.imaging.sources import ControlNets, Source, controlnet_paths, dtype_of, load
from workers.engines.imaging.studio import MASK, PICTURE, Item, Settings, Studio, too_large
from workers.engines.imaging.work import Preview, Progress, items_of
from workers.engines.launch import Launch
from workers.engines.window import Abandoned, Batch, Pick, Window, first_fitting

Picture = Image.Image


class ImageEngine(Engine):
    """One image model."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        self.options: ImageOptions = read_options(launch.options)

    def load(self) -> None:
        options = self.options
        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        device = prepare(self.launch.device)
        torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
        dtype = dtype_of(options.dtype, device)
        nets = ControlNets(controlnet_paths(options.controlnets, options.controlnet_folder), dtype, device)
        pipe = load(
            Source(Path(self.launch.model), dtype, options.config, options.variant, options.quantization)
        )
        options.memory.tune(pipe)
        self.studio = Studio(pipe, nets, lambda view: options.memory.place(view, device))
        self.reader = Reader(options.limits, self._defaults(pipe), self._abilities(pipe), self.launch.media)
        pick: Pick[Item] = first_fitting(settings_of, pixels_of, options.batch_items, options.batch_pixels)
        self.window: Window[Item, Picture] = Window(self.run_batch, pick, options.wait_s)
        self.window.start()

    def _defaults(self, pipe: Any) -> Defaults:
        options = self.options
        own = getattr(pipe, "default_sample_size", None) or pipe.unet.config.sample_size
        side = int(own) * pipe.vae_scale_factor
        name = schedulers.plain(options.scheduler) if options.scheduler else None
        if name is not None and name not in schedulers.usable(pipe.scheduler):
            raise ValueError(f"option scheduler: this model has no {options.scheduler!r}")
        return Defaults(options.width or side, options.height or side, options.steps, options.guidance, name)

    def _abilities(self, pipe: Any) -> Abilities:
        encoder = getattr(pipe, "text_encoder", None)
        skips = "clip_skip" in self.studio.takes and encoder is not None
        return Abilities(
            pictures=self.studio.can(PICTURE),
            masks=self.studio.can(MASK),
            controlnets=self.studio.nets.names() if self.studio.can_control() else (),
            schedulers=schedulers.usable(pipe.scheduler),
            multiple=self.studio.multiple,
            takes=self.studio.takes,
            clip_skip=encoder.config.num_hidden_layers - 1 if skips and encoder is not None else 0,
        )

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/images/generations"): self.generate, ("POST", "/v1/images/edits"): self.edit}

    def unload(self) -> None:
        self.window.stop()

    def details(self) -> Mapping[str, Any]:
        limits = self.options.limits
        return {
            "family": self.studio.family,
            "size": [self.reader.defaults.width, self.reader.defaults.height],
            "controlnets": self.studio.nets.names(),
            "controlnets_loaded": self.studio.nets.loaded(),
            "schedulers": list(self.reader.able.schedulers),
            "limits": {"pixels": limits.pixels, "steps": limits.steps, "images": limits.images},
            "batches": self.window.batches,
            "items": self.window.items,
            "waiting": self.window.waiting(),
        }

    def run_batch(self, batch: Batch[Item, Picture]) -> Sequence[Picture | EngineFault]:
        """One run on the model's thread."""

        def check() -> None:
            if batch.abandoned():
                raise Abandoned

        return in_parts(batch.items, lambda items: self.studio.paint(items, check), too_large)

    async def generate(self, call: Call) -> Reply | Stream:
        return await self.answer(call, GENERATIONS, "image_generation")

    async def edit(self, call: Call) -> Reply | Stream:
        return await self.answer(call, EDITS, "image_edit")

    async def answer(self, call: Call, endpoint: str, event: str) -> Reply | Stream:
        fields = Fields(call.json())
        self.app.check_model(fields)
        ask = self.reader.read(fields, endpoint)
        call.run.report(0, ask.count * ask.steps, "waiting")
        progress = Progress(lambda done, total: call.run.report(done, total, "painting"), ask.count)
        if ask.stream:
            return await self.stream(ask, progress, event)
        items = await self.prepare(ask, progress, None)
        pictures = await self.window.submit(items)
        writer = self.writer(ask, items, event)
        return Reply(await asyncio.to_thread(writer.body, pictures))

    async def prepare(self, ask: Ask, progress: Progress, preview: Preview | None) -> list[Item]:
        prompts, cut = self.studio.prompts, self.options.truncate
        return await asyncio.to_thread(items_of, ask, self.reader, prompts, progress, preview, cut=cut)

    def writer(self, ask: Ask, items: Sequence[Item], event: str) -> Writer:
        tokens = self.studio.prompts.tokens(ask.prompt)
        return Writer(ask, items, self.app.served_name, tokens, event)

    async def stream(self, ask: Ask, progress: Progress, event: str) -> Stream:
        """Bad input is found here, so that it still has its own status."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[int, int, Picture] | None] = asyncio.Queue()

        def preview(place: int, number: int, picture: Picture) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (place, number, picture))

        items = await self.prepare(ask, progress, preview)
        return Stream(self.events(self.writer(ask, items, event), items, queue))

    async def events(
        self, writer: Writer, items: Sequence[Item], queue: asyncio.Queue[tuple[int, int, Picture] | None]
    ) -> AsyncIterator[bytes]:
        work = asyncio.ensure_future(self.window.submit(items))
        work.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (shown := await queue.get()) is not None:
                yield await asyncio.to_thread(writer.partial, *shown)
            for place, picture in enumerate(await work):
                yield await asyncio.to_thread(writer.completed, place, picture)
            yield encoding.DONE
        finally:
            work.cancel()


def settings_of(item: Item) -> Settings:
    return item.settings


def pixels_of(items: Sequence[Item]) -> float:
    return sum(item.settings.width * item.settings.height for item in items)


if __name__ == "__main__":
    main(ImageEngine, "workers.engines.image")
