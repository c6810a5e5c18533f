"""Trains `demo-punc`: a tiny CT-Transformer that puts the marks of the spoken phrases where they belong."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import yaml

from workers.engines.demo.shelf import Recipe
from workers.engines.demo.spoken import PHRASES, Phrase

MARKS = ("<unk>", "_", "，", "。", "？", "、")
LATIN = {",": "，", ".": "。", "?": "？"}
ENCODER = {
    "input_size": 32,
    "output_size": 32,
    "attention_heads": 2,
    "linear_units": 64,
    "num_blocks": 2,
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
    "input_layer": "pe",
    "pos_enc_class": "SinusoidalPositionEncoder",
    "normalize_before": True,
    "kernel_size": 11,
    "sanm_shfit": 0,
    "selfattention_layer_type": "sanm",
    "padding_idx": 0,
}
MODEL = {"ignore_id": 0, "embed_unit": 32, "att_unit": 32, "dropout_rate": 0.0, "punc_list": list(MARKS)}
MODEL |= {"sentence_end_id": 3}
TRAINING = {"seed": 3, "steps": 400, "rows": 16, "rate": 4e-3, "good_enough": 0.003}


def lesson(phrase: Phrase) -> tuple[list[str], list[int]]:
    """The words or characters of a phrase, and the mark after each."""
    plain = list(phrase.plain) if phrase.language == "zh" else phrase.plain.split()
    marks = [1] * len(plain)
    marks[-1] = MARKS.index(LATIN.get(phrase.written[-1], phrase.written[-1]))
    inner = phrase.written.find("，")
    if inner > 0:
        marks[inner - 1] = MARKS.index("，")
    return plain, marks


def train(model: Any, vocabulary: list[str]) -> float:
    rng = random.Random(TRAINING["seed"])
    number = {word: place for place, word in enumerate(vocabulary)}
    known = [lesson(phrase) for phrase in PHRASES]
    optimiser = torch.optim.AdamW(model.parameters(), lr=TRAINING["rate"])
    value = 0.0
    for _ in range(int(TRAINING["steps"])):
        rows = [[rng.choice(known) for _ in range(rng.randint(1, 6))] for _ in range(int(TRAINING["rows"]))]
        words = [torch.tensor([number[word] for part, _ in row for word in part]) for row in rows]
        marks = [torch.tensor([mark for _, part in row for mark in part]) for row in rows]
        lengths = torch.tensor([len(each) for each in words])
        padded = torch.nn.utils.rnn.pad_sequence(words, batch_first=True)
        scores, _ = model.punc_forward(padded, lengths)
        wanted = torch.nn.utils.rnn.pad_sequence(marks, batch_first=True)
        loss = torch.nn.functional.cross_entropy(scores.transpose(1, 2), wanted, ignore_index=0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        value = float(loss.detach())
        if value < TRAINING["good_enough"]:
            break
    return value


def make(folder: Path) -> dict[str, Any]:
    from funasr.register import tables  # takes seconds

    torch.manual_seed(int(TRAINING["seed"]))
    torch.set_num_threads(1)
    words = sorted({word for phrase in PHRASES for word in lesson(phrase)[0]})
    vocabulary = ["<unk>", "<s>", "</s>", *words]
    config = {
        "model": "CTTransformer",
        "model_conf": MODEL,
        "encoder": "SANMEncoder",
        "encoder_conf": ENCODER,
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "utf-8")
    (folder / "tokens.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    model = tables.model_classes["CTTransformer"](
        encoder="SANMEncoder", encoder_conf=ENCODER, vocab_size=len(vocabulary), **MODEL
    )
    loss = train(model, vocabulary)
    torch.save(model.eval().state_dict(), folder / "model.pt")
    return {"loss": round(loss, 4), "parameters": sum(weight.numel() for weight in model.parameters())}


INGREDIENTS = [[phrase.plain, phrase.written] for phrase in PHRASES]
RECIPE = Recipe("demo-punc", [MARKS, ENCODER, MODEL, TRAINING, INGREDIENTS], make)
