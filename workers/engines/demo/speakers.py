"""Makes `demo-spk`: a CAM++ that tells three of espeak-ng's voices apart.

The folder is what FunASR reads. Its depth is fixed by FunASR's class; too deep to be learnt in a minute. So it is wired
by hand to pass on random mixtures of the bands of each frame, and only its last layer is fitted: how much the mixtures
vary over a piece tells the voices apart. `speakers.json` names the voices it knows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from workers.engines.demo import spoken
from workers.engines.demo.shelf import Recipe
from workers.engines.demo.spoken import PHRASES, RATE

SHAPE = {"feat_dim": 80, "embedding_size": 32, "growth_rate": 4, "bn_size": 2, "init_channels": 128}
LANGUAGES = {"en": "en-us", "zh": "cmn"}
# A speaker is a variant of espeak-ng's voices and a pitch, the same in both languages.
SPEAKERS = (("", 10), ("+f3", 60), ("", 95))
SPEEDS, OTHER_SPEEDS = (140, 160, 180), (150, 170)
FITTING = {"seed": 11, "pieces": 600, "others": 120, "rows": 30, "settling": 8, "lift": 3.0, "ridge": 0.01}
CHUNK = RATE * 3 // 2
NORMALISATIONS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


def sounds(speeds: Sequence[int]) -> list[list[Any]]:
    """For each speaker, everything that it can say."""
    return [
        [
            spoken.say(phrase.plain, LANGUAGES[phrase.language] + variant, speed, pitch)
            for phrase in PHRASES
            for speed in speeds
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


def lesson(known: list[list[Any]], count: int, seed: int) -> tuple[list[Any], Any]:
    """Features of pieces in batches, and the number of each piece's speaker."""
    from funasr.models.campplus.utils import extract_feature

    rng, noise = random.Random(seed), np.random.default_rng(seed)
    who = [place % len(known) for place in range(count)]
    said = [chunk(rng.choice(known[each]), rng, noise) for each in who]
    rows = int(FITTING["rows"])
    return [extract_feature(said[place : place + rows])[0] for place in range(0, count, rows)], torch.tensor(
        who
    )


def wire(model: Any) -> None:
    """No layer looks beside its frame, cuts anything off, or drops what came from the first layers."""
    for name, weight in model.named_parameters():
        with torch.no_grad():
            if weight.dim() == 4 and weight.shape[-1] == 3:  # bands by frames
                weight[..., [0, 2]] = 0
            elif name == "xvector.tdnn.linear.weight":
                weight[..., [0, 1, 3, 4]] = 0
            elif "transit" in name and name.endswith("linear.weight"):
                weight.zero_()[:, : len(weight), 0] = torch.eye(len(weight))
    for each in model.modules():
        if isinstance(each, NORMALISATIONS) and each.affine:
            # So far above zero that the ReLU behind it lets all pass.
            torch.nn.init.constant_(each.bias, FITTING["lift"])


def settle(model: Any, batches: list[Any]) -> None:
    """Measure what the normalisations remember."""
    for each in model.modules():
        if isinstance(each, NORMALISATIONS):
            each.reset_running_stats()
            each.momentum = None
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    model.eval()


def fit(model: Any, batches: list[Any], who: Any) -> None:
    """The last layer: ridge regression from the mixtures to one axis per speaker, seen from their middle."""
    last = model.xvector.dense
    found: list[Any] = []
    hook = last.register_forward_pre_hook(lambda _, given: found.append(given[0].flatten(1)))
    run(model, batches)
    hook.remove()
    seen = torch.cat(found).double()
    middle, spread = seen.mean(0), seen.std(0) + 1e-3
    scaled = (seen - middle) / spread
    wanted = torch.eye(len(SPEAKERS)).double()[who] - 1 / len(SPEAKERS)
    ridge = float(FITTING["ridge"]) * len(scaled) * torch.eye(scaled.shape[1]).double()
    weight = (torch.linalg.solve(scaled.T @ scaled + ridge, scaled.T @ wanted).T / spread).float()
    size = len(SPEAKERS)
    with torch.no_grad():
        last.linear.weight.zero_()[:size, :, 0] = weight
        memory = last.nonlinear.batchnorm
        memory.running_mean.zero_()[:size] = weight @ middle.float()
        memory.running_var.fill_(1)


def run(model: Any, batches: list[Any]) -> Any:
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in batches])


def margins(model: Any, batches: list[Any], who: Any) -> tuple[float, float]:
    """The least cosine of two pieces of one speaker, and the greatest of two speakers'."""
    unit = torch.nn.functional.normalize(run(model, batches))
    alike, same = unit @ unit.T, who[:, None] == who[None, :]
    return float(alike[same].min()), float(alike[~same].max())


def make(folder: Path) -> dict[str, Any]:
    from funasr.register import tables  # takes seconds

    torch.set_num_threads(1)
    config = {"model": "CAMPPlus", "model_conf": SHAPE}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    seed = int(FITTING["seed"])
    torch.manual_seed(seed)
    model = tables.model_classes["CAMPPlus"](memory_efficient=False, **SHAPE)
    wire(model)
    batches, who = lesson(sounds(SPEEDS), int(FITTING["pieces"]), seed)
    settle(model, batches[: int(FITTING["settling"])])
    fit(model, batches, who)
    same, other = margins(model, *lesson(sounds(OTHER_SPEEDS), int(FITTING["others"]), seed + 1))
    print(f"demo-spk: cosines at least {same:.2f} of one speaker, at most {other:.2f} of two", flush=True)
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "speakers.json").write_text(json.dumps(SPEAKERS), "utf-8")
    size = sum(weight.numel() for weight in model.parameters())
    return {"same": round(same, 2), "other": round(other, 2), "parameters": size}


RECIPE = Recipe(
    "demo-spk",
    [SHAPE, LANGUAGES, SPEAKERS, SPEEDS, FITTING, CHUNK, [[each.plain, each.language] for each in PHRASES]],
    make,
)
