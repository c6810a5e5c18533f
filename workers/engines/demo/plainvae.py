"""An autoencoder that needs no teaching: its weights are set so that a latent is the mean colour of eight by eight
pixels, and decoding paints that colour back.

Residual blocks and attention begin as the identity with a little noise, so every weight has a say in the picture. Two
things make the rest linear although a group norm and a SiLU stand in the way:
- each colour travels as a pair +x, -x, and silu(z) - silu(-z) = z;
- each group of the norm also holds +BALLAST and -BALLAST, beside which the colours hardly change its variance.
"""

from __future__ import annotations

from typing import Any

import torch

BALLAST = 8.0
NOISE = 0.002
QUIET = -12.0  # logarithm of the latents' variance
LUMINANCE = (0.299, 0.587, 0.114)


@torch.no_grad()
def set_weights(vae: Any, seed: int) -> None:
    """Set all weights of an `AutoencoderKL` with four latent channels and four norm groups of four or more channels."""
    noises = torch.Generator().manual_seed(seed)
    for module in (vae.encoder, vae.decoder):
        calm(module, noises)
        for block in module.modules():
            shortcut = getattr(block, "conv_shortcut", None)
            if shortcut is not None:
                relay(shortcut)
    for block in vae.encoder.down_blocks:
        for sampler in block.downsamplers or ():
            halve(sampler.conv)
    for block in vae.decoder.up_blocks:
        for sampler in block.upsamplers or ():
            relay(sampler.conv)
    colours = torch.cat([torch.eye(3), torch.tensor([LUMINANCE])])
    spread(vae.encoder.conv_in, colours)
    spread(vae.decoder.conv_in, torch.eye(4))
    gather(vae.encoder.conv_out, vae.encoder.conv_norm_out)
    gather(vae.decoder.conv_out, vae.decoder.conv_norm_out)
    for layer in (vae.quant_conv, vae.post_quant_conv):
        same(layer)
    vae.encoder.conv_out.bias[4:] = QUIET


def calm(module: Any, noises: Any) -> None:
    """Make every block's own contribution small, so that what goes around it comes through."""
    for name, weight in module.named_parameters():
        if name.endswith(("conv2.weight", "to_out.0.weight")):
            weight.copy_(torch.randn(weight.shape, generator=noises) * NOISE)
        elif name.endswith(("conv2.bias", "to_out.0.bias")):
            weight.zero_()


def clear(layer: Any) -> Any:
    """The matrix of the layer's middle pixel, all else zero."""
    layer.weight.zero_()
    layer.bias.zero_()
    return layer.weight[:, :, layer.weight.shape[2] // 2, layer.weight.shape[3] // 2]


def same(layer: Any) -> None:
    clear(layer).copy_(torch.eye(layer.weight.shape[0], layer.weight.shape[1]))


def place(group: int, channels: int) -> int:
    return group * channels // 4


def relay(layer: Any) -> None:
    """Hand each group's four channels on, whatever the widths on both sides."""
    middle = clear(layer)
    for group in range(4):
        for channel in range(4):
            middle[place(group, middle.shape[0]) + channel, place(group, middle.shape[1]) + channel] = 1


def halve(layer: Any) -> None:
    """Hand on the mean of two by two pixels."""
    relay(layer)
    middle = layer.weight[:, :, 1, 1].clone()
    layer.weight.zero_()
    layer.weight[:, :, :2, :2] = middle[:, :, None, None] / 4


def spread(layer: Any, mix: Any) -> None:
    """From colours to groups of +x, -x, +BALLAST, -BALLAST."""
    middle = clear(layer)
    for group in range(4):
        first = place(group, middle.shape[0])
        middle[first] = mix[group]
        middle[first + 1] = -mix[group]
        layer.bias[first + 2], layer.bias[first + 3] = BALLAST, -BALLAST


def gather(layer: Any, norm: Any) -> None:
    """From normed groups back to colours, times what the norm divided by."""
    middle = clear(layer)
    channels = middle.shape[1]
    scale = BALLAST * (2 / (channels // 4)) ** 0.5
    norm.weight.fill_(1)
    norm.bias.zero_()
    for group in range(min(4, middle.shape[0])):
        first = place(group, channels)
        middle[group, first], middle[group, first + 1] = scale, -scale
