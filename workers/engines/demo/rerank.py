"""Trains `demo-rerank`: a tiny BERT-shaped cross-encoder that knows which of the demo sentences mean the same."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification

from workers.engines.demo.embed import MEANINGS, wordpiece
from workers.engines.demo.shelf import Recipe

SHAPE = {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 128, "context": 128, "vocabulary": 1024}
TRAINING = {"seed": 5, "steps": 1500, "rate": 1e-3, "spread": 0.12, "wrong_per_right": 3, "look_every": 50}
SURE = 1.0  # the logit that right pairs are above, and wrong ones below its negative
Pair = tuple[str, str]


def lesson(rng: random.Random) -> tuple[list[Pair], list[float]]:
    """For each meaning one right pair, and some of two meanings."""
    pairs, truth = [], []
    for place, meaning in enumerate(MEANINGS):
        pairs.append((rng.choice(meaning), rng.choice(meaning)))
        truth.append(1.0)
        for _ in range(int(TRAINING["wrong_per_right"])):
            other = rng.choice([one for number, one in enumerate(MEANINGS) if number != place])
            pairs.append((rng.choice(meaning), rng.choice(other)))
            truth.append(0.0)
    return pairs, truth


def train(model: Any, tokenizer: Any) -> float:
    rng = random.Random(TRAINING["seed"])
    optimiser = torch.optim.AdamW(model.parameters(), lr=TRAINING["rate"])
    seen, loss = 1.0, torch.zeros(())
    for step in range(int(TRAINING["steps"])):
        pairs, truth = lesson(rng)
        left, right = ([pair[side] for pair in pairs] for side in (0, 1))
        batch = tokenizer(left, right, padding=True, return_tensors="pt")
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            model(**batch).logits[:, 0], torch.tensor(truth)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen = 0.9 * seen + 0.1 * float(loss.detach())
        if step % int(TRAINING["look_every"]) == int(TRAINING["look_every"]) - 1:
            wrong = mistakes(model, tokenizer)
            print(
                f"demo-rerank: step {step + 1}/{TRAINING['steps']} loss {seen:.4f} wrong {wrong}", flush=True
            )
            if not wrong:
                break
    return seen


def mistakes(model: Any, tokenizer: Any) -> int:
    """How many of all pairs of texts it is not sure about."""
    texts = [(place, text) for place, meaning in enumerate(MEANINGS) for text in meaning]
    wrong = 0
    with torch.inference_mode():
        for place, query in texts:
            batch = tokenizer(
                [query] * len(texts), [text for _, text in texts], padding=True, return_tensors="pt"
            )
            right = torch.tensor([other == place for other, _ in texts])
            logits = model(**batch).logits[:, 0]
            wrong += int(torch.where(right, logits < SURE, logits > -SURE).sum())
    return wrong


def make(folder: Path) -> dict[str, Any]:
    torch.manual_seed(TRAINING["seed"])
    torch.set_num_threads(1)
    corpus = [text for meaning in MEANINGS for text in meaning]
    tokenizer = wordpiece(corpus, int(SHAPE["vocabulary"]), int(SHAPE["context"]), pairs=True)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=SHAPE["hidden"],
        num_hidden_layers=SHAPE["layers"],
        num_attention_heads=SHAPE["heads"],
        intermediate_size=SHAPE["intermediate"],
        max_position_embeddings=SHAPE["context"],
        num_labels=1,
        initializer_range=TRAINING["spread"],  # small weights would learn four times slower
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model: Any = BertForSequenceClassification(config)
    model.train()
    loss = train(model, tokenizer)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CrossEncoder(str(folder), device="cpu", local_files_only=True).save(str(folder), create_model_card=False)
    (folder / "meanings.json").write_text(json.dumps(MEANINGS, ensure_ascii=False, indent=1), "utf-8")
    return {"loss": round(loss, 4), "parameters": sum(weight.numel() for weight in model.parameters())}


RECIPE = Recipe("demo-rerank", [SHAPE, TRAINING, SURE, MEANINGS, "pairs", "ordered pieces"], make)
