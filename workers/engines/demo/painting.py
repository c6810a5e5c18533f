"""What the demo image model is taught: to paint the colour it is told.

Owns the pictures, the words and the training loop. Must not know files or formats.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (40, 70, 220),
    "yellow": (230, 210, 50),
    "purple": (140, 50, 170),
    "orange": (240, 140, 30),
    "black": (20, 20, 20),
    "white": (240, 240, 240),
}
PHRASES = ("{}", "a {} picture", "a {} square", "{} paint", "a picture in {}", "the colour {}")
SIDE = 64
DENOISER = {"steps": 240, "batch": 16, "rate": 4e-3, "unprompted": 0.1}
SEED = 17


def corpus() -> Iterator[str]:
    for phrase in PHRASES:
        yield from (phrase.format(colour) for colour in COLOURS)
    yield "a photo of the sun over sea and hills, no blur, low quality, masterpiece, best"


def painting(rng: random.Random, colour: str, side: int) -> Any:
    """One picture of a colour: that colour with a slope of brightness, so that no two are the same."""
    base = torch.tensor(COLOURS[colour]).view(3, 1, 1) / 127.5 - 1
    across = torch.linspace(-0.5, 0.5, side).view(1, 1, side)
    slope = across * rng.uniform(-0.5, 0.5) + across.view(1, side, 1) * rng.uniform(-0.5, 0.5)
    return (base + slope + rng.uniform(-0.08, 0.08)).clamp(-1, 1)


def schedule(optimiser: Any, rate: float, steps: int) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)


@torch.no_grad()
def latents_of(vae: Any, pictures: Any) -> Any:
    return vae.encode(pictures).latent_dist.mean


def measure_scale(vae: Any) -> float:
    """The factor that brings latents to unit variance, which the noise schedule supposes."""
    rng = random.Random(SEED)
    pictures = torch.stack([painting(rng, colour, SIDE) for colour in COLOURS for _ in range(4)])
    return float(1 / latents_of(vae, pictures).std())


def teach_denoiser(pipe: Any) -> float:
    """Tell noise from painting, told the colour. Trains the text encoder along. Returns the last loss.

    What is predicted is the velocity, which for the noisiest pictures is the painting itself: so words count at once.
    """
    rng = random.Random(SEED)
    steps, batch = int(DENOISER["steps"]), int(DENOISER["batch"])
    gallery = [(colour, painting(rng, colour, SIDE)) for colour in COLOURS for _ in range(24)]
    latents = latents_of(pipe.vae, torch.stack([picture for _, picture in gallery]))
    latents = latents * pipe.vae.config.scaling_factor
    weights = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=DENOISER["rate"], weight_decay=0)
    pace = schedule(optimiser, DENOISER["rate"], steps)
    noises = torch.Generator().manual_seed(SEED)
    loss = torch.zeros(())
    for step in range(steps):
        chosen = [rng.randrange(len(gallery)) for _ in range(batch)]
        texts = [rng.choice(PHRASES).format(gallery[place][0]) for place in chosen]
        texts = [text if rng.random() > DENOISER["unprompted"] else "" for text in texts]
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=noises)
        times = times_of(pipe.scheduler.config.num_train_timesteps, batch, noises)
        noisy = pipe.scheduler.add_noise(clean, noise, times)
        context = pipe.text_encoder(tokens_of(pipe.tokenizer, texts))[0]
        guess = pipe.unet(noisy, times, encoder_hidden_states=context).sample
        loss = torch.nn.functional.mse_loss(guess, pipe.scheduler.get_velocity(clean, noise, times))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        pace.step()
        if step % 40 == 39:
            print(f"demo-image: denoiser step {step + 1}/{steps} loss {float(loss.detach()):.4f}", flush=True)
    return float(loss.detach())


def times_of(most: int, count: int, noises: Any) -> Any:
    """Half of them from the noisiest quarter: where the mean colour still shows, no word is needed to tell it."""
    times = torch.randint(0, most, (count,), generator=noises)
    times[: count // 2] = torch.randint(most * 3 // 4, most, (count // 2,), generator=noises)
    return times


def tokens_of(tokenizer: Any, texts: list[str]) -> Any:
    return tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
