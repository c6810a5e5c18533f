"""The weight names of the original Stable Diffusion 1.x files for weights that diffusers names otherwise.

The layout is read off the original program's modules: numbered input, middle and output blocks for the denoiser,
levels counted from the full resolution for the autoencoder. Must not know how the weights came to be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LEVELS = 4
BLOCKS = 2  # per level on the way down; one more on the way up
Weights = dict[str, Any]

UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
PLACE = re.compile(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)")


def original_names(parts: Mapping[str, Weights]) -> Weights:
    """All weights of one file, from the state dicts of `unet`, `vae` and `text_encoder`."""
    named: Weights = {}
    for name, weight in parts["unet"].items():
        named[f"model.diffusion_model.{unet_name(name)}"] = weight.contiguous()
    for name, weight in parts["vae"].items():
        known = vae_name(name)
        # The original attention of the autoencoder is a convolution of one pixel.
        square = ".attn_1." in known and known.endswith("weight") and weight.ndim == 2
        named[f"first_stage_model.{known}"] = (weight[:, :, None, None] if square else weight).contiguous()
    for name, weight in parts["text_encoder"].items():
        whole = name if name.startswith("text_model.") else f"text_model.{name}"
        named[f"cond_stage_model.transformer.{whole}"] = weight.contiguous()
    return named


def unet_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in UNET_ENDS:
        return f"{UNET_ENDS[stem]}.{kind}"
    middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name)
    if middle:
        what, number, rest = middle.groups()
        place = 1 if what == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{rest if what == 'attentions' else resnet_name(rest)}"
    found = PLACE.fullmatch(name)
    if found is None:
        raise ValueError(f"no original name for {name}")
    return unet_place(*found.groups())


def unet_place(way: str, level: str, what: str, number: str, rest: str) -> str:
    """Blocks are numbered through; a change of resolution is a block going down, and a block's last part going up."""
    if way == "down":
        block = 1 + int(level) * (BLOCKS + 1) + int(number)
        if what == "downsamplers":
            return f"input_blocks.{block + BLOCKS}.0.op.{rest.removeprefix('conv.')}"
        head = f"input_blocks.{block}"
    else:
        block = int(level) * (BLOCKS + 1) + int(number)
        if what == "upsamplers":
            # The first level up has no attention, so its upsampler comes one place earlier.
            return f"output_blocks.{block + BLOCKS}.{1 if level == '0' else 2}.{rest}"
        head = f"output_blocks.{block}"
    return f"{head}.0.{resnet_name(rest)}" if what == "resnets" else f"{head}.1.{rest}"


def resnet_name(rest: str) -> str:
    stem, _, kind = rest.rpartition(".")
    return f"{UNET_RESNET[stem]}.{kind}"


def vae_name(name: str) -> str:
    side, _, rest = name.partition(".")
    if side not in ("encoder", "decoder"):
        return name
    rest = rest.replace("conv_norm_out", "norm_out")
    middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", rest)
    if middle:
        what, number, tail = middle.groups()
        if what == "resnets":
            return f"{side}.mid.block_{int(number) + 1}.{tail}"
        stem, _, kind = tail.rpartition(".")
        return f"{side}.mid.attn_1.{VAE_ATTENTION[stem]}.{kind}"
    found = PLACE.fullmatch(rest)
    if found is None:
        return f"{side}.{rest}"
    way, level, what, number, tail = found.groups()
    head = f"{side}.{way}.{level if way == 'down' else LEVELS - 1 - int(level)}"
    if what == "resnets":
        return f"{head}.block.{number}.{tail.replace('conv_shortcut', 'nin_shortcut')}"
    return f"{head}.{'downsample' if way == 'down' else 'upsample'}.{tail}"
