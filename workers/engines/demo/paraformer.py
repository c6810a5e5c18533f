"""Trains `demo-paraformer`: a tiny Paraformer that knows the spoken phrases, without punctuation."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.nn.utils.rnn import pad_sequence

from workers.engines.demo import asr, spoken
from workers.engines.demo.asr import FRONTEND, Take
from workers.engines.demo.shelf import Recipe
from workers.engines.demo.spoken import PHRASES

ENCODER = {name: value for name, value in asr.ENCODER.items() if name != "tp_blocks"}
DECODER = {
    "attention_heads": 2,
    "linear_units": 128,
    "num_blocks": 2,
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
    "self_attention_dropout_rate": 0.0,
    "src_attention_dropout_rate": 0.0,
    "att_layer_num": 2,
    "kernel_size": 11,
    "sanm_shfit": 0,
}
PREDICTOR = {"idim": 96, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45, "dropout": 0.0}
MODEL = {"ctc_weight": 0.0, "lsm_weight": 0.0, "length_normalized_loss": True, "predictor_weight": 1.0}
MODEL |= {"predictor_bias": 0, "sampling_ratio": 0.0}
TRAINING = {"seed": 9, "takes": 440, "rows": 16, "epochs": 16, "rate": 3e-3, "good_enough": 0.02}


def words(take: Take) -> list[str]:
    """English words and Chinese characters, as they are said."""
    return [
        word
        for phrase in take.phrases
        for word in (list(phrase.plain) if phrase.language == "zh" else phrase.plain.split())
    ]


def train(model: Any, number: dict[str, int], lessons: list[Take]) -> float:
    rng, rows = random.Random(TRAINING["seed"]), int(TRAINING["rows"])
    steps = int(TRAINING["epochs"]) * -(-len(lessons) // rows)
    optimiser = torch.optim.AdamW(model.parameters(), lr=TRAINING["rate"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, TRAINING["rate"], total_steps=steps, pct_start=0.2
    )
    mean = 0.0
    model.train()
    for epoch in range(int(TRAINING["epochs"])):
        order = sorted(lessons, key=lambda take: len(take.features) + rng.random() * 20)
        batches = [order[at : at + rows] for at in range(0, len(order), rows)]
        rng.shuffle(batches)
        mean = 0.0
        for batch in batches:
            texts = [torch.tensor([number[word] for word in words(take)]) for take in batch]
            loss, _, _ = model(
                pad_sequence([take.features for take in batch], batch_first=True),
                torch.tensor([len(take.features) for take in batch]),
                pad_sequence(texts, batch_first=True, padding_value=-1),
                torch.tensor([len(text) for text in texts]),
            )
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            mean += float(loss.detach()) / len(batches)
        print(f"demo-paraformer: epoch {epoch + 1}/{TRAINING['epochs']} loss {mean:.4f}", flush=True)
        if mean < TRAINING["good_enough"]:
            break
    return mean


def make(folder: Path) -> dict[str, Any]:
    from funasr.register import tables  # takes seconds

    torch.manual_seed(int(TRAINING["seed"]))
    torch.set_num_threads(1)
    config = {
        "model": "Paraformer",
        "model_conf": MODEL,
        "encoder": "SANMEncoder",
        "encoder_conf": ENCODER,
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": DECODER,
        "predictor": "CifPredictorV2",
        "predictor_conf": PREDICTOR,
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "frontend": "WavFrontend",
        "frontend_conf": FRONTEND,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    frontend = tables.frontend_classes["WavFrontend"](**FRONTEND)
    lessons = [
        take for take in asr.takes(frontend, int(TRAINING["takes"]), int(TRAINING["seed"])) if take.phrases
    ]
    rows = torch.cat([take.features for take in lessons])
    asr.write_cmvn(folder / "am.mvn", rows)
    shift, scale = rows.mean(0), rows.std(0)
    lessons = [dataclasses.replace(take, features=(take.features - shift) / scale) for take in lessons]
    tokens = ["<blank>", "<s>", "</s>", *sorted({word for take in lessons for word in words(take)}), "<unk>"]
    (folder / "tokens.json").write_text(json.dumps(tokens, ensure_ascii=False), "utf-8")
    named = {name: config[name] for name in ("encoder", "decoder", "predictor")}
    model = tables.model_classes["Paraformer"](
        **named,
        encoder_conf=ENCODER,
        decoder_conf=DECODER,
        predictor_conf=PREDICTOR,
        input_size=560,
        vocab_size=len(tokens),
        **MODEL,
    )
    loss = train(model, {word: place for place, word in enumerate(tokens)}, lessons)
    torch.save(model.eval().state_dict(), folder / "model.pt")
    phrases = [dataclasses.asdict(phrase) for phrase in PHRASES]
    (folder / "phrases.json").write_text(json.dumps(phrases, ensure_ascii=False, indent=1), "utf-8")
    return {"loss": round(loss, 4), "parameters": sum(weight.numel() for weight in model.parameters())}


INGREDIENTS = [asr.INGREDIENTS, spoken.VOICES]
RECIPE = Recipe(
    "demo-paraformer", [FRONTEND, ENCODER, DECODER, PREDICTOR, MODEL, TRAINING, INGREDIENTS], make
)
