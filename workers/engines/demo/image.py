"""Demo models for pictures: Stable Diffusion 1.5 in its own topology with narrow layers, as a folder and as one file,
and a ControlNet for it.

The topology (four levels, two blocks each, attention on the upper three) is that of the real model, because readers of
single files take it for granted. It is taught to paint the colour that the prompt names.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file
from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from workers.engines.demo import painting, plainvae
from workers.engines.demo.ldm import original_names
from workers.engines.demo.shelf import Recipe, build

UNET = {"widths": [32, 32, 32, 64], "context": 32, "heads": 4, "groups": 8}
VAE = {"widths": [16, 16, 32, 32], "groups": 4}
TEXT = {
    "hidden": 32,
    "layers": 2,
    "heads": 2,
    "intermediate": 64,
    "context": 20,
    "vocabulary": 640,
}
SPREAD = 1.0  # of the word embeddings at the start
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
TAUGHT = [
    plainvae.BALLAST,
    plainvae.NOISE,
    painting.COLOURS,
    painting.PHRASES,
    painting.DENOISER,
    painting.SEED,
    painting.SIDE,
]
START, END = "<|startoftext|>", "<|endoftext|>"
CONTROL_STRENGTH = 0.2


def tokenizer() -> Any:
    """CLIP's byte-level BPE, with merges learnt from the words that are taught."""
    draft = CLIPTokenizer()
    inner = draft.backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT["vocabulary"],
        # The ends too: else their numbers, and with them the order of equally frequent merges, come by chance.
        special_tokens=[START, END, *ends()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    inner.train_from_iterator(painting.corpus(), trainer)
    learnt = json.loads(inner.to_str())["model"]
    merges = [tuple(merge) for merge in learnt["merges"]]
    vocabulary = whole_vocabulary(learnt["vocab"])
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT["context"])


def whole_vocabulary(learnt: dict[str, int]) -> dict[str, int]:
    """The learnt tokens with every byte also as the end of a word, and the two special ones last, as CLIP has them."""
    plain = [token for token in sorted(learnt, key=lambda each: learnt[each]) if token not in (START, END)]
    names = dict.fromkeys([*plain, *ends(), START, END])
    return {token: number for number, token in enumerate(names)}


def ends() -> list[str]:
    return [f"{byte}</w>" for byte in sorted(pre_tokenizers.ByteLevel.alphabet())]


def unet() -> Any:
    across = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    back = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    return UNet2DConditionModel(
        sample_size=painting.SIDE // 8,
        block_out_channels=UNET["widths"],
        down_block_types=across,
        up_block_types=back,
        layers_per_block=2,
        cross_attention_dim=UNET["context"],
        attention_head_dim=UNET["heads"],
        norm_num_groups=UNET["groups"],
    )


def vae() -> Any:
    return AutoencoderKL(
        block_out_channels=VAE["widths"],
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=VAE["groups"],
        sample_size=painting.SIDE,
    )


def text_encoder(words: Any) -> Any:
    """A text model whose words differ much from the start, which saves most of the teaching."""
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=TEXT["hidden"],
            intermediate_size=TEXT["intermediate"],
            num_hidden_layers=TEXT["layers"],
            num_attention_heads=TEXT["heads"],
            max_position_embeddings=TEXT["context"],
            projection_dim=TEXT["hidden"],
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=SPREAD)
    return model


def make(folder: Path) -> dict[str, Any]:
    quiet()
    torch.manual_seed(painting.SEED)
    torch.set_num_threads(1)  # the work of a step is smaller than the meeting of two threads
    words = tokenizer()
    scheduler = DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    pipe: Any = StableDiffusionPipeline(
        vae=vae(),
        text_encoder=text_encoder(words),
        tokenizer=words,
        unet=unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    plainvae.set_weights(pipe.vae, painting.SEED)
    pipe.vae.register_to_config(scaling_factor=painting.measure_scale(pipe.vae))
    loss = painting.teach_denoiser(pipe)
    # Half the size; every engine casts to the precision it runs in.
    pipe.to(dtype=torch.float16).save_pretrained(folder)
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    count = sum(weight.numel() for part in parts for weight in part.parameters())
    return {"loss": round(loss, 4), "parameters": count}


def make_single(folder: Path) -> dict[str, Any]:
    """The same weights as one file in the names of the original program, with the configuration folder beside it."""
    quiet()
    whole = build(RECIPE, folder.parent)
    pipe: Any = StableDiffusionPipeline.from_pretrained(whole, dtype=torch.float16, local_files_only=True)
    parts = {"unet": pipe.unet, "vae": pipe.vae, "text_encoder": pipe.text_encoder}
    weights = original_names({name: part.state_dict() for name, part in parts.items()})
    save_file(weights, folder / "demo-image.safetensors")
    skipped = shutil.ignore_patterns("*.safetensors", "inferq-demo.json")
    shutil.copytree(whole, folder / "demo-image", ignore=skipped)
    return {"weights": len(weights)}


def make_controlnet(folder: Path) -> dict[str, Any]:
    """A copy of the denoiser's first half. Its last layers, zero in a fresh one, are set so that control shows."""
    quiet()
    whole = build(RECIPE, folder.parent)
    base: Any = UNet2DConditionModel.from_pretrained(whole, subfolder="unet", local_files_only=True)
    torch.manual_seed(painting.SEED)
    net: Any = ControlNetModel.from_unet(base, conditioning_embedding_out_channels=(8, 16, 32, 64))
    reader = net.controlnet_cond_embedding
    for layer in (reader.conv_in, *reader.blocks, reader.conv_out):
        # What a picture says must come through seven layers, each of which would halve it.
        torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.normal_(layer.weight, std=CONTROL_STRENGTH)
    net.half().save_pretrained(folder)
    return {"parameters": sum(weight.numel() for weight in net.parameters())}


def quiet() -> None:
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


RECIPE = Recipe("demo-image", [UNET, VAE, TEXT | {"spread": SPREAD}, NOISE, TAUGHT, "ordered merges"], make)
SINGLE_RECIPE = Recipe("demo-image-single", [RECIPE.fingerprint, "ldm"], make_single)
CONTROLNET_RECIPE = Recipe(
    "demo-controlnet", [RECIPE.fingerprint, CONTROL_STRENGTH, "kaiming"], make_controlnet
)
