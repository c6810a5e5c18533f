"""Makes `demo-video` and `demo-image-video`: CogVideoX in its real parts and file layout, narrow, with random weights.

What it shows is coloured noise, but noise that follows the prompt, the seed, the size, and (in the second
model) the picture it starts from: that is what a test of an engine can hold on to.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from workers.engines.demo.shelf import Recipe

TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "time_embed_dim": 16,
    "num_layers": 2,
    "sample_width": 12,
    "sample_height": 8,
    "sample_frames": 49,
    "patch_size": 2,
    "temporal_compression_ratio": 4,
    "max_text_seq_length": 32,
    "use_rotary_positional_embeddings": True,
}
LATENT_CHANNELS = 4
VAE = {
    "block_out_channels": (8, 8, 8, 8),
    "latent_channels": LATENT_CHANNELS,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "temporal_compression_ratio": 4,
    "sample_height": 64,
    "sample_width": 96,
    "scaling_factor": 1.0,
}
TEXT = {
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
}
# How much louder than random weights: the prompt's tokens, what attention carries over from them, the picture, and
# the movement of one step; then how far colours spread. Without these every prompt gives nearly the same grey film.
LOUDER = {"prompt": 40.0, "attention": 4.0, "picture": 4.0, "step": 2.0}
CONTRAST = 0.35
SEED = 5


def tokenizer() -> Any:
    """A T5 tokenizer that spells: one token for each printable ASCII character."""
    letters = [sign for sign in string.printable if not sign.isspace()]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((sign, -3.0) for sign in letters)]
    # Whole words, so that a prompt of usual length fits.
    words = (
        "a an the of in on and with at red green blue cat dog sun moon sea boat walks runs sits flies over"
    )
    pieces += [(f"▁{word}", -4.0) for word in words.split()]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=226)


@torch.no_grad()
def spread(vae: Any) -> None:
    """Scale the last layer so that colours reach from dark to bright."""
    latents = torch.randn(1, LATENT_CHANNELS, 3, 8, 8)
    seen = vae.decode(latents).sample
    last = vae.decoder.conv_out.conv
    last.weight.mul_(CONTRAST / seen.std())
    last.bias.sub_(last.bias)


@torch.no_grad()
def raise_voices(transformer: Any) -> None:
    transformer.patch_embed.text_proj.weight.mul_(LOUDER["prompt"])
    transformer.patch_embed.proj.weight[:, LATENT_CHANNELS:].mul_(LOUDER["picture"])
    transformer.proj_out.weight.mul_(LOUDER["step"])
    for block in transformer.transformer_blocks:
        block.attn1.to_v.weight.mul_(LOUDER["attention"])
        block.attn1.to_out[0].weight.mul_(LOUDER["attention"])


def make(folder: Path, from_picture: bool) -> dict[str, Any]:
    torch.manual_seed(SEED)
    words = tokenizer()
    text = T5EncoderModel(T5Config(**TEXT, vocab_size=len(words)))
    vae: Any = AutoencoderKLCogVideoX(**VAE)
    spread(vae)
    transformer: Any = CogVideoXTransformer3DModel(
        **TRANSFORMER,
        in_channels=LATENT_CHANNELS * (2 if from_picture else 1),
        out_channels=LATENT_CHANNELS,
        text_embed_dim=TEXT["d_model"],
    )
    raise_voices(transformer)
    kind = CogVideoXImageToVideoPipeline if from_picture else CogVideoXPipeline
    scheduler = CogVideoXDDIMScheduler(
        rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
    )
    parts = {"tokenizer": words, "text_encoder": text, "vae": vae, "transformer": transformer}
    kind(**parts, scheduler=scheduler).save_pretrained(folder)
    return {
        "parameters": sum(weight.numel() for part in (text, vae, transformer) for weight in part.parameters())
    }


INGREDIENTS = [TRANSFORMER, VAE, TEXT, LATENT_CHANNELS, LOUDER, CONTRAST, SEED]
RECIPE = Recipe("demo-video", INGREDIENTS, lambda folder: make(folder, from_picture=False))
PICTURE_RECIPE = Recipe("demo-image-video", INGREDIENTS, lambda folder: make(folder, from_picture=True))
