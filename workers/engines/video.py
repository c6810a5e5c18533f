"""The video engine: `/v1/video/generations` on diffusers' CogVideoX pipelines. The answer is the MP4 file.

Options: `native_fps` (frames per second the model was trained at, default 8), `max_frames` (of the model, default
its own number), `max_pixels` (per frame, default those of its own size), `max_duration` (seconds, default what
`max_frames` allows), `max_fps` (of the file, default 60), `max_steps` (default 100), `steps` (default 50),
`guidance_scale` (default 6), `dynamic_guidance` (default false), `blend` (mix neighbouring frames where the file has
another rate than the model, default true; else the nearer one is shown), `quality` (x264's constant rate factor,
default 18), `max_input_pixels` (of a picture to start from, default 40 million), `dtype` (default float32 on a CPU,
else bfloat16), `offload` (`none`, `model`, `sequential`; default none), `vae_tiling` and `vae_slicing` (default
false), `threads` (torch threads, default all cores).

One video at a time. Encoding happens outside the model's thread.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from workers.engines import device
from workers.engines.asgi import Call, EngineApp, Handler, Reply
from workers.engines.base import Engine, main
from workers.engines.fields import Fields
from workers.engines.launch import Launch, Options
from workers.engines.media import local_path
from workers.engines.pictures import read_picture
from workers.engines.runs import Run
from workers.engines.videogen.mp4 import Clip, encode, in_time
from workers.engines.videogen.pipeline import OFFLOADS, Director, Fit, Scene
from workers.engines.videogen.request import Limits, VideoAsk, read_video
from workers.engines.window import Abandoned, Batch, Window


@dataclass(frozen=True)
class Take:
    """One scene that waits for its turn."""

    scene: Scene
    run: Run


class VideoEngine(Engine):
    """One video model."""

    def __init__(self, launch: Launch, app: EngineApp) -> None:
        super().__init__(launch, app)
        options = Options(launch.options)
        self.native_fps = options.take("native_fps", 8.0)
        self.max_frames = options.take("max_frames", 0)
        self.max_pixels = options.take("max_pixels", 0)
        self.max_duration = options.take("max_duration", 0.0)
        self.max_fps = options.take("max_fps", 60.0)
        self.max_steps = options.take("max_steps", 100)
        self.steps = options.take("steps", 50)
        self.guidance = options.take("guidance_scale", 6.0)
        self.dynamic_guidance = options.take("dynamic_guidance", False)
        self.blend = options.take("blend", True)
        self.quality = options.take("quality", 18)
        self.max_input_pixels = options.take("max_input_pixels", 40_000_000)
        self.threads = options.take("threads", 0)
        self.fit = Fit(
            dtype=options.take("dtype", "float32" if launch.device == "cpu" else "bfloat16"),
            offload=options.take("offload", "none"),
            tiling=options.take("vae_tiling", False),
            slicing=options.take("vae_slicing", False),
        )
        options.close()
        if min(self.native_fps, self.max_fps, self.max_steps, self.steps) <= 0:
            raise ValueError("options 'native_fps', 'max_fps', 'max_steps' and 'steps' must be above 0")
        if self.fit.offload not in OFFLOADS:
            raise ValueError(f"option 'offload' must be one of {', '.join(OFFLOADS)}")
        if self.fit.offload != "none" and launch.device == "cpu":
            raise ValueError("option 'offload' needs another device than the CPU")

    def load(self) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        diffusers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        torch.set_num_threads(self.threads or len(os.sched_getaffinity(0)))
        where = device.prepare(self.launch.device)
        self.director = Director(self.launch.model, where, self.fit, self.dynamic_guidance)
        rhythm = self.director.rhythm(self.native_fps, self.max_frames)
        most_steps = min(self.max_steps, self.director.most_steps)
        self.limits = Limits(
            canvas=self.director.canvas(self.max_pixels),
            rhythm=rhythm,
            max_duration=self.max_duration or rhythm.longest / rhythm.rate,
            max_fps=self.max_fps,
            max_steps=most_steps,
            steps=min(self.steps, most_steps),
            guidance=self.guidance,
            from_picture=self.director.from_picture,
        )
        self.window: Window[Take, Any] = Window(self.run_batch, lambda takes: [0])
        self.window.start()

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/video/generations"): self.generate}

    def unload(self) -> None:
        self.window.stop()

    def details(self) -> Mapping[str, Any]:
        limits = self.limits
        return {
            "size": str(limits.canvas.native),
            "size_unit": limits.canvas.unit,
            "max_pixels": limits.canvas.most,
            "native_fps": limits.rhythm.rate,
            "max_frames": limits.rhythm.longest,
            "max_duration": limits.max_duration,
            "from_picture": limits.from_picture,
            "made": self.window.items,
            "waiting": self.window.waiting(),
        }

    async def generate(self, call: Call) -> Reply:
        fields = Fields(call.json())
        self.app.check_model(fields)
        ask = read_video(fields, self.limits)
        call.run.report(0, ask.steps, "waiting")
        scene = await asyncio.to_thread(self.compose, ask)
        [frames] = await self.window.submit([Take(scene, call.run)])
        call.run.report(ask.steps, stage="encoding")
        return Reply(await self.encode(ask, scene, frames), media="video/mp4")

    def compose(self, ask: VideoAsk) -> Scene:
        """What can still be wrong with a request, found before it waits."""
        self.director.check_text(ask.prompt, "prompt")
        self.director.check_text(ask.negative or "", "negative_prompt")
        picture = None
        if ask.picture is not None:
            path = local_path(ask.picture, "image_url", self.launch.media)
            picture = read_picture(path, "image_url", self.max_input_pixels)
        seed = ask.seed if ask.seed is not None else random.getrandbits(32)
        return Scene(
            ask.prompt, ask.negative, ask.made_size, ask.frames, ask.steps, ask.guidance, seed, picture
        )

    def run_batch(self, batch: Batch[Take, Any]) -> Sequence[Any]:
        """One video on the model's thread."""
        [take] = batch.items
        steps = take.scene.steps
        take.run.report(0, steps, "denoising")

        def step_done(step: int) -> None:
            take.run.report(step, steps, "denoising" if step < steps else "decoding")

        def go_on() -> None:
            if batch.abandoned():
                raise Abandoned
            # A step of a large model is long; each block of it shows that the run is alive.
            take.run.report(take.run.done)

        return [self.director.run(take.scene, step_done, go_on)]

    async def encode(self, ask: VideoAsk, scene: Scene, frames: Any) -> bytes:
        left = threading.Event()

        def go_on() -> None:
            if left.is_set():
                raise Abandoned

        pictures = in_time(Clip(frames, self.native_fps), ask.timeline, self.blend)
        tags = {"title": ask.prompt, "comment": json.dumps(recipe(self.app.served_name, scene))}
        try:
            return await asyncio.to_thread(
                encode, pictures, ask.timeline, ask.size, self.quality, tags, go_on
            )
        finally:
            left.set()


def recipe(model: str, scene: Scene) -> dict[str, Any]:
    """What another run needs to make the same video."""
    made = {"model": model, "prompt": scene.prompt, "negative_prompt": scene.negative, "seed": scene.seed}
    return made | {"steps": scene.steps, "guidance_scale": scene.guidance, "frames": scene.frames}


if __name__ == "__main__":
    main(VideoEngine, "workers.engines.video")
