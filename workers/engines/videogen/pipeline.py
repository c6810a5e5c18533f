"""One CogVideoX pipeline of diffusers: loading it, what it can make, and one run of it.

Source of the rules: `CogVideoXPipeline`, `CogVideoXTransformer3DModel` and `AutoencoderKLCogVideoX` in diffusers.
Must not know requests of callers; `go_on` is how a run learns that nobody waits any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXImageToVideoPipeline, CogVideoXPipeline
from PIL import Image, ImageOps

from workers.engines.counting import for_counting
from workers.engines.failures import ContextLengthExceeded, EngineFault
from workers.engines.videogen.plan import Canvas, Rhythm, Size

KINDS: dict[str, Any] = {
    "CogVideoXPipeline": CogVideoXPipeline,
    "CogVideoXImageToVideoPipeline": CogVideoXImageToVideoPipeline,
}
OFFLOADS = ("none", "model", "sequential")


@dataclass(frozen=True)
class Fit:
    """How a pipeline is put onto a device that is short of memory."""

    dtype: str
    offload: str
    tiling: bool
    slicing: bool


@dataclass(frozen=True)
class Scene:
    """What one run makes."""

    prompt: str
    negative: str | None
    size: Size
    frames: int
    steps: int
    guidance: float
    seed: int
    picture: Any


class Director:
    """A loaded pipeline. One run at a time, on one thread: the scheduler inside has a state."""

    def __init__(self, folder: str, device: str, fit: Fit, dynamic_guidance: bool) -> None:
        kind = pipeline_kind(folder)
        self.pipeline: Any = KINDS[kind].from_pretrained(
            folder, dtype=getattr(torch, fit.dtype), local_files_only=True
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.from_picture = KINDS[kind] is CogVideoXImageToVideoPipeline
        self.dynamic_guidance = dynamic_guidance
        self.text_limit = int(self.pipeline.transformer.config.max_text_seq_length)
        self.most_steps = int(self.pipeline.scheduler.config.num_train_timesteps)
        self._words = for_counting(self.pipeline.tokenizer)
        self._go_on: Callable[[], None] = lambda: None
        self._place(device, fit)
        self._watch()

    def _place(self, device: str, fit: Fit) -> None:
        if fit.tiling:
            self.pipeline.vae.enable_tiling()
        if fit.slicing:
            self.pipeline.vae.enable_slicing()
        if fit.offload == "model":
            self.pipeline.enable_model_cpu_offload(device=device)
        elif fit.offload == "sequential":
            self.pipeline.enable_sequential_cpu_offload(device=device)
        else:
            self.pipeline.to(device)

    def _watch(self) -> None:
        """Ask before every block and every piece of the decoder: a step of a large model takes seconds."""
        parts = [*self.pipeline.transformer.transformer_blocks, self.pipeline.vae.decoder]
        for part in parts:
            part.register_forward_pre_hook(lambda module, inputs: self._go_on())

    def canvas(self, most: int) -> Canvas:
        """The sizes this model makes; `most` pixels, or as many as its own size has."""
        config = self.pipeline.transformer.config
        scale = self.pipeline.vae_scale_factor_spatial
        native = Size(config.sample_width * scale, config.sample_height * scale)
        fixed = bool(config.use_learned_positional_embeddings)
        return Canvas(scale * config.patch_size, native, most or native.pixels, fixed)

    def rhythm(self, rate: float, most: int) -> Rhythm:
        """The counts of frames this model makes.

        The pipeline asks for 1 + 4k. But the decoder takes latent frames in pairs, and only with an odd number of
        them does it begin with the single frame that it learnt; with an even one it returns frames nobody asked for
        (5 become 8). So the rule is 1 + 8k, which is also what the model's authors say.
        """
        step = int(self.pipeline.vae_scale_factor_temporal * self.pipeline.vae.num_latent_frames_batch_size)
        return Rhythm(rate, step, most or int(self.pipeline.transformer.config.sample_frames))

    def check_text(self, text: str, param: str) -> None:
        """The pipeline would cut a long prompt and say nothing. In any thread."""
        length = len(self._words(text)["input_ids"])
        if length > self.text_limit:
            raise ContextLengthExceeded(
                f"'{param}' has {length} tokens; this model reads {self.text_limit}.", param=param
            )

    def run(self, scene: Scene, step_done: Callable[[int], None], go_on: Callable[[], None]) -> Any:
        """Frames as bytes, shape (frames, height, width, 3). What `go_on` raises ends the run at once."""
        go_on()
        self._go_on = go_on

        def after_step(pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            go_on()
            step_done(step + 1)
            return values

        try:
            video = self.pipeline(
                **self._arguments(scene),
                generator=torch.Generator("cpu").manual_seed(scene.seed),
                callback_on_step_end=after_step,
                output_type="np",
            ).frames[0]
        finally:
            self._go_on = lambda: None
            # A run that ended early leaves what was moved to the device there.
            self.pipeline.maybe_free_model_hooks()
        return as_bytes(video, scene)

    def _arguments(self, scene: Scene) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "prompt": scene.prompt,
            "negative_prompt": scene.negative,
            "width": scene.size.width,
            "height": scene.size.height,
            "num_frames": scene.frames,
            "num_inference_steps": scene.steps,
            "guidance_scale": scene.guidance,
            "use_dynamic_cfg": self.dynamic_guidance,
            "max_sequence_length": self.text_limit,
        }
        if self.from_picture:
            # The pipeline would squeeze a picture of another shape; cutting its edges keeps what it shows.
            sides = (scene.size.width, scene.size.height)
            arguments["image"] = ImageOps.fit(scene.picture, sides, Image.Resampling.LANCZOS)
        return arguments


def pipeline_kind(folder: str) -> str:
    """The class that the folder's index names. Raises ValueError for one this engine does not run."""
    index = Path(folder) / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} has no model_index.json: a diffusers folder is needed")
    kind = str(json.loads(index.read_text("utf-8")).get("_class_name"))
    if kind not in KINDS:
        raise ValueError(f"the pipeline is a {kind}; this engine runs {', '.join(KINDS)}")
    return kind


def as_bytes(video: Any, scene: Scene) -> Any:
    """From numbers between 0 and 1 to bytes, checked to be what was planned."""
    wanted = (scene.frames, scene.size.height, scene.size.width, 3)
    if video.shape != wanted:
        raise EngineFault(f"The model made frames of shape {video.shape}, not {wanted}.")
    if not np.isfinite(video).all():
        raise EngineFault("The model made no colours (NaN); another dtype may help.")
    return np.rint(video * 255).astype(np.uint8)
