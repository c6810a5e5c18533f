"""One image model in memory, and the running of one batch on it.

The pipelines for text, picture, mask and ControlNets are views: they share all weights. Used by one thread only. Must
not know requests or files.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from workers.engines.failures import EngineFault
from workers.engines.imaging import masks, schedulers
from workers.engines.imaging.control import Control
from workers.engines.imaging.prompts import Prompts
from workers.engines.imaging.sources import ControlNets

TEXT, PICTURE, MASK = "text", "picture", "mask"
VIEWS = {
    TEXT: diffusers.AutoPipelineForText2Image,
    PICTURE: diffusers.AutoPipelineForImage2Image,
    MASK: diffusers.AutoPipelineForInpainting,
}
PREVIEW = 32  # side in latents above which a preview is decoded from every second one
Picture = Image.Image


@dataclass(frozen=True)
class Settings:
    """What all pictures of one run have in common."""

    mode: str
    width: int
    height: int
    steps: int
    guidance: float
    true_guidance: float | None
    scheduler: str | None
    clip_skip: int
    strength: float
    controls: tuple[Control, ...]
    windows: int
    negated: bool

    @property
    def real_steps(self) -> int:
        """Steps that are run: a picture to start from replaces the first ones."""
        return self.steps if self.mode == TEXT else int(self.steps * self.strength)


@dataclass(frozen=True)
class Watch:
    """Who follows the making of one picture: steps done and in total, and pictures on the way."""

    step: Callable[[int, int], None] = lambda done, total: None
    previews: int = 0
    preview: Callable[[int, Picture], None] = lambda number, picture: None


@dataclass(frozen=True, eq=False)
class Item:
    """One picture to be made."""

    settings: Settings
    prompt: str
    negative: str
    seed: int
    source: Picture | None = None
    mask: Picture | None = None
    hints: tuple[Picture, ...] = ()
    watch: Watch = field(default_factory=Watch)


class Studio:
    """The pipeline, its views and its ControlNets."""

    def __init__(self, pipe: Any, nets: ControlNets, place: Callable[[Any], None]) -> None:
        self.pipe = pipe
        self.nets = nets
        self.prompts = Prompts(pipe)
        self.family = pipe.__class__.__name__.removesuffix("Pipeline")
        self.takes = frozenset(inspect.signature(pipe.__call__).parameters)
        self._place = place
        self._views: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._shown: Any = None
        # Packed latents are patches of two by two.
        self.multiple = pipe.vae_scale_factor * (2 if hasattr(pipe, "_unpack_latents") else 1)

    def can(self, mode: str) -> bool:
        """Whether the family has a pipeline for this mode."""
        try:
            VIEWS[mode].from_pipe(self.pipe)
        except ValueError:
            return False
        return True

    def can_control(self) -> bool:
        return hasattr(diffusers, f"{self.family}ControlNetPipeline")

    def view(self, mode: str, nets: tuple[str, ...] = ()) -> Any:
        """The pipeline of one mode with these ControlNets. Raises ValueError where the family has none."""
        key = (mode, nets)
        self._make_room(nets)
        loaded = [self.nets.get(name) for name in nets]
        if key not in self._views:
            extra = {"controlnet": loaded if len(loaded) > 1 else loaded[0]} if loaded else {}
            self._views[key] = VIEWS[mode].from_pipe(self.pipe, **extra)
            self._views[key].set_progress_bar_config(disable=True)
        view = self._views[key]
        if view is not self._shown:
            self._place(view)
            self._shown = view
        return view

    def _make_room(self, nets: tuple[str, ...]) -> None:
        """A ControlNet's memory is free when no view has it any more."""
        self.nets.make_room(nets)
        there = {*self.nets.loaded(), *nets}
        self._views = {key: view for key, view in self._views.items() if there.issuperset(key[1])}
        if all(view is not self._shown for view in self._views.values()):
            self._shown = None

    def paint(self, items: Sequence[Item], check: Callable[[], None]) -> list[Picture | EngineFault]:
        """Pictures for items of equal settings; a fault in place of one whose values are no numbers.

        `check` is called between steps and may raise to end the run.
        """
        settings = items[0].settings
        if settings.real_steps < 1:
            # Nothing is to be changed, so nothing is.
            return [whole(item.source) for item in items]
        view = self.view(settings.mode, tuple(control.model for control in settings.controls))
        view.scheduler = schedulers.fresh(self.pipe.scheduler, settings.scheduler)
        arguments = self._arguments(view, items) | {"callback_on_step_end": Steps(view, items, check)}
        takes = inspect.signature(view.__call__).parameters
        try:
            arrays = view(**{name: value for name, value in arguments.items() if name in takes}).images
        finally:
            view.maybe_free_model_hooks()
        return [developed(array, item) for array, item in zip(arrays, items, strict=True)]

    def _arguments(self, view: Any, items: Sequence[Item]) -> dict[str, Any]:
        settings = items[0].settings
        arguments: dict[str, Any] = {
            "width": settings.width,
            "height": settings.height,
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance,
            "generator": [torch.Generator("cpu").manual_seed(item.seed) for item in items],
            "output_type": "np",
        }
        if settings.true_guidance is not None:
            arguments["true_cfg_scale"] = settings.true_guidance
        arguments |= self._prompt_arguments(items)
        if settings.mode != TEXT:
            arguments |= {"image": [item.source for item in items], "strength": settings.strength}
        if settings.mode == MASK:
            arguments["mask_image"] = [item.mask for item in items]
        if settings.controls:
            arguments |= control_arguments(view, settings, items)
        return arguments

    def _prompt_arguments(self, items: Sequence[Item]) -> dict[str, Any]:
        settings = items[0].settings
        texts, against = [item.prompt for item in items], [item.negative for item in items]
        if self.prompts.windowed and (settings.windows > 1 or settings.clip_skip):
            # diffusers' own clip_skip looks for a part of the encoder that newer transformers no longer have.
            return {
                "prompt_embeds": self.prompts.embed(texts, settings.windows, settings.clip_skip),
                "negative_prompt_embeds": self.prompts.embed(against, settings.windows, settings.clip_skip),
            }
        chosen: dict[str, Any] = {"prompt": texts, "negative_prompt": against if settings.negated else None}
        return chosen | ({"clip_skip": settings.clip_skip} if settings.clip_skip else {})


class Steps:
    """diffusers' callback after each step: reports, previews, and the chance to stop."""

    def __init__(self, view: Any, items: Sequence[Item], check: Callable[[], None]) -> None:
        self._view, self._items, self._check = view, items, check

    def __call__(self, view: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self._check()
        done, total = index + 1, int(view.num_timesteps)
        for place, item in enumerate(self._items):
            item.watch.step(done, total)
            number = preview_at(done, total, item.watch.previews)
            if number is not None:
                latents = tensors["latents"][place : place + 1]
                item.watch.preview(number, finished(decoded(self._view, latents, item.settings), item))
        return {}


def preview_at(done: int, total: int, previews: int) -> int | None:
    """Which preview, if any, is due after this step: they are spread evenly and leave out the last step."""
    places = sorted({max(1, total * number // (previews + 1)) for number in range(1, previews + 1)} - {total})
    return places.index(done) if done in places else None


@torch.no_grad()
def decoded(view: Any, latents: Any, settings: Settings) -> Picture:
    """A picture of latents on their way, at half the size where that is still large enough to look at."""
    if hasattr(view, "_unpack_latents"):
        unpack = view._unpack_latents  # noqa: SLF001 - the family's own; diffusers has no public one
        latents = unpack(latents, settings.height, settings.width, view.vae_scale_factor)
    if max(latents.shape[-2:]) > PREVIEW:
        latents = latents[:, :, ::2, ::2]
    config = view.vae.config
    latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0)
    narrow = view.vae.dtype
    wide = torch.float32 if getattr(config, "force_upcast", False) and narrow == torch.float16 else narrow
    view.vae.to(wide)
    try:
        values = view.vae.decode(latents.to(wide), return_dict=False)[0][0].float()
    finally:
        view.vae.to(narrow)
    values = (values / 2 + 0.5).clamp(0, 1).nan_to_num()
    return Image.fromarray((values.permute(1, 2, 0).cpu().numpy() * 255).round().astype("uint8"))


def control_arguments(view: Any, settings: Settings, items: Sequence[Item]) -> dict[str, Any]:
    """Pictures and ranges in the form for one ControlNet or for several: the library wants no list for one."""
    name = "control_image" if "control_image" in inspect.signature(view.__call__).parameters else "image"
    hints = [stacked([item.hints[place] for item in items]) for place in range(len(settings.controls))]
    values = {
        name: hints,
        "controlnet_conditioning_scale": [control.weight for control in settings.controls],
        "control_guidance_start": [control.start for control in settings.controls],
        "control_guidance_end": [control.end for control in settings.controls],
    }
    return values if len(hints) > 1 else {key: value[0] for key, value in values.items()}


def stacked(pictures: Sequence[Picture]) -> Any:
    """A tensor of shape (pictures, 3, height, width) with values from 0 to 1."""
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255


def developed(array: Any, item: Item) -> Picture | EngineFault:
    """The picture of values from 0 to 1, shape (height, width, 3)."""
    if not np.isfinite(array).all():
        return EngineFault("The model gave values that are no numbers; another option dtype may help.")
    return finished(Image.fromarray((array * 255).round().astype("uint8")), item)


def whole(picture: Picture | None) -> Picture:
    if picture is None:
        raise EngineFault("A picture to start from is missing.")
    return picture


def finished(picture: Picture, item: Item) -> Picture:
    """With a mask, everything outside it is the source's own."""
    if item.mask is None or item.source is None:
        return picture
    return masks.merged(picture.resize(item.source.size), item.source, item.mask)


def too_large(error: Exception) -> bool:
    """Whether a run failed because its batch does not fit into the device's memory."""
    short = isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()
    if short and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return short
