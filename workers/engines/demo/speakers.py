"""Trains `demo-spk`: a narrow CAM++ that tells three of espeak-ng's voices apart.

The folder is what FunASR reads. Its depth is fixed by FunASR's class, only its width is small. `speakers.json` names
the voices it knows.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from workers.engines.demo import spoken
from workers.engines.demo.shelf import Recipe
from workers.engines.demo.spoken import PHRASES, RATE

SHAPE = {"feat_dim": 80, "embedding_size": 32, "growth_rate": 4, "bn_size": 2, "init_channels": 16}
LANGUAGES = {"en": "en-us", "zh": "cmn"}
# A speaker is a variant of espeak-ng's voices and a pitch, the same in both languages.
SPEAKERS = (("", 10), ("+f3", 60), ("", 95))
TRAINING = {
    "seed": 11,
    "rows": 9,
    "steps": 110,
    "rate": 4e-3,
    "scale": 12.0,
    "settling": 12,
    "good_enough": 0.02,
    "bearable": 0.025,
    "tries": 3,
}
CHUNK = RATE * 3 // 2


def sounds() -> list[list[Any]]:
    """For each speaker, everything that it can say."""
    return [
        [
            spoken.say(phrase.plain, LANGUAGES[phrase.language] + variant, speed, pitch)
            for phrase in PHRASES
            for speed in (140, 160, 180)
        ]
        for variant, pitch in SPEAKERS
    ]


def chunk(sound: Any, rng: random.Random, noise: np.random.Generator) -> Any:
    """A second and a half from a recording, silence around it as a detector leaves it, at some loudness."""
    edge = np.zeros(int(rng.uniform(0, 0.4) * RATE), np.float32)
    whole = np.concatenate([edge, sound, edge])
    start = rng.randrange(max(1, len(whole) - CHUNK))
    part = whole[start : start + CHUNK] * rng.uniform(0.4, 1.1)
    part = part + rng.choice((0.0, 1e-4, 1e-3)) * noise.standard_normal(len(part))
    return torch.from_numpy(np.pad(part, (0, CHUNK - len(part))).astype(np.float32))


def train(model: Any, known: list[list[Any]], seed: int) -> float:
    """Embeddings of a speaker are pulled to one direction, and those directions apart."""
    from funasr.models.campplus.utils import extract_feature

    rng, noise = random.Random(seed), np.random.default_rng(seed)
    centres = torch.nn.Parameter(torch.randn(len(known), int(SHAPE["embedding_size"])))
    optimiser = torch.optim.AdamW([*model.parameters(), centres], lr=TRAINING["rate"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, TRAINING["rate"], total_steps=int(TRAINING["steps"]), pct_start=0.2
    )

    def lesson() -> tuple[Any, list[int]]:
        who = [place % len(known) for place in range(int(TRAINING["rows"]))]
        return extract_feature([chunk(rng.choice(known[each]), rng, noise) for each in who])[0], who

    unit, mean = torch.nn.functional.normalize, 1.0
    model.train()
    for _ in range(int(TRAINING["steps"])):
        features, who = lesson()
        alike = unit(model(features)) @ unit(centres).T
        loss = torch.nn.functional.cross_entropy(TRAINING["scale"] * alike, torch.tensor(who))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        mean = 0.9 * mean + 0.1 * float(loss.detach())
        if mean < TRAINING["good_enough"]:
            break
    settle(model, [lesson()[0] for _ in range(int(TRAINING["settling"]))])
    return mean


def settle(model: Any, batches: list[Any]) -> None:
    """Measure what the normalisations remember on the finished weights: they have changed faster than the memory."""
    for each in model.modules():
        if isinstance(each, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            each.reset_running_stats()
            each.momentum = None
    with torch.no_grad():
        for batch in batches:
            model(batch)


def make(folder: Path) -> dict[str, Any]:
    from funasr.register import tables  # takes seconds

    torch.set_num_threads(1)
    config = {"model": "CAMPPlus", "model_conf": SHAPE}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    known = sounds()
    # espeak-ng does not say a thing twice in the same way, so a seed that went well once may not do so again.
    for seed in range(int(TRAINING["seed"]), int(TRAINING["seed"]) + int(TRAINING["tries"])):
        torch.manual_seed(seed)
        model = tables.model_classes["CAMPPlus"](memory_efficient=False, **SHAPE)
        loss = train(model, known, seed)
        print(f"demo-spk: seed {seed} loss {loss:.4f}", flush=True)
        if loss < TRAINING["bearable"]:
            break
    torch.save(model.eval().state_dict(), folder / "model.pt")
    (folder / "speakers.json").write_text(json.dumps(SPEAKERS), "utf-8")
    return {"loss": round(loss, 4), "parameters": sum(weight.numel() for weight in model.parameters())}


RECIPE = Recipe(
    "demo-spk",
    [SHAPE, LANGUAGES, SPEAKERS, TRAINING, CHUNK, [[each.plain, each.language] for each in PHRASES]],
    make,
)
