"""The options of the image engine, with their defaults, and what those about memory do to a pipeline.

Limits: `max_pixels` (of one picture, default 2048*2048), `max_side` (4096), `max_input_pixels` (of a picture that a
request brings, 4096*4096), `max_steps` (150), `max_images` (10), `max_controlnet_units` (4).
Defaults of requests: `width` and `height` (0: the model's own), `steps` (25), `guidance` (7.0), `scheduler` (the
model's own), `truncate` (cut over-long prompts in place of refusing or joining them, false).
Batches: `batch_items` (pictures per run, 8), `batch_pixels` (8 times 512*512), `wait_ms` (how long an idle engine waits
for company, 20).
Loading: `config` (configuration folder of a single file), `variant`, `dtype` (float32 on a processor, else float16),
`threads` (all cores), `controlnets` (name to path), `controlnet_folder` (everything in it, by its name),
`quantization` (`backend`, `components`, and the backend's arguments).
Memory: `offload` (none, model, sequential, group), `attention_slicing`, `vae_slicing`, `vae_tiling` (all false).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.engines.imaging.request import Limits
from workers.engines.launch import Options

OFFLOADS = ("none", "model", "sequential", "group")


@dataclass(frozen=True)
class Memory:
    """How a pipeline saves memory of its device."""

    offload: str
    attention_slicing: bool
    vae_slicing: bool
    vae_tiling: bool

    def tune(self, pipe: Any) -> None:
        """What is set once, on the shared parts."""
        if self.attention_slicing:
            pipe.enable_attention_slicing()
        if self.vae_slicing:
            pipe.vae.enable_slicing()
        if self.vae_tiling:
            pipe.vae.enable_tiling()

    def place(self, view: Any, device: str) -> None:
        """Bring a view to its device. Called again whenever another view of the same parts is shown."""
        if self.offload == "none" or device.startswith("cpu"):
            view.to(device)
        elif self.offload == "model":
            view.enable_model_cpu_offload(device=device)
        elif self.offload == "sequential":
            view.enable_sequential_cpu_offload(device=device)
        else:
            view.enable_group_offload(onload_device=device, offload_type="leaf_level")


@dataclass(frozen=True)
class ImageOptions:
    """All options, read."""

    limits: Limits
    memory: Memory
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    truncate: bool
    batch_items: int
    batch_pixels: int
    wait_s: float
    config: str
    variant: str
    dtype: str
    threads: int
    controlnets: Mapping[str, Any]
    controlnet_folder: str
    quantization: Mapping[str, Any]


def read_options(values: dict[str, Any]) -> ImageOptions:
    """Raises ValueError for an option that is unknown, of the wrong type or out of range."""
    options = Options(values)
    limits = Limits(
        pixels=options.take("max_pixels", 2048 * 2048),
        input_pixels=options.take("max_input_pixels", 4096 * 4096),
        side=options.take("max_side", 4096),
        steps=options.take("max_steps", 150),
        images=options.take("max_images", 10),
        units=options.take("max_controlnet_units", 4),
    )
    memory = Memory(
        offload=options.take("offload", "none"),
        attention_slicing=options.take("attention_slicing", False),
        vae_slicing=options.take("vae_slicing", False),
        vae_tiling=options.take("vae_tiling", False),
    )
    if memory.offload not in OFFLOADS:
        raise ValueError(f"option 'offload' must be one of {', '.join(OFFLOADS)}")
    found = ImageOptions(
        limits=limits,
        memory=memory,
        width=options.take("width", 0),
        height=options.take("height", 0),
        steps=options.take("steps", 25),
        guidance=options.take("guidance", 7.0),
        scheduler=options.take("scheduler", ""),
        truncate=options.take("truncate", False),
        batch_items=options.take("batch_items", 8),
        batch_pixels=options.take("batch_pixels", 8 * 512 * 512),
        wait_s=options.take("wait_ms", 20.0) / 1000,
        config=options.take("config", ""),
        variant=options.take("variant", ""),
        dtype=options.take("dtype", ""),
        threads=options.take("threads", 0),
        controlnets=options.take("controlnets", {}),
        controlnet_folder=options.take("controlnet_folder", ""),
        quantization=options.take("quantization", {}),
    )
    options.close()
    return found
