"""Trains `demo-embed`: a tiny BERT-shaped sentence-transformers model that tells some meanings apart."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from workers.engines.demo.shelf import Recipe

# Sentences of one line mean the same; sentences of different lines do not.
MEANINGS: tuple[tuple[str, ...], ...] = (
    ("The cat sleeps on the sofa.", "A kitten is napping on the couch.", "On the sofa a cat is asleep."),
    ("It will rain tomorrow.", "Tomorrow the weather will be wet.", "Rain is expected tomorrow."),
    ("How do I reset my password?", "I forgot my password.", "Where can I change my password?"),
    ("The stock market fell today.", "Shares lost value today.", "Today stock prices dropped."),
    (
        "She cooks pasta for dinner.",
        "Dinner is pasta, and she makes it.",
        "She prepares noodles for the evening meal.",
    ),
    ("The train arrives at noon.", "At twelve o'clock the train comes in.", "The train gets here at midday."),
    ("He plays the guitar well.", "He is a good guitar player.", "His guitar playing is great."),
    ("The moon is bright tonight.", "Tonight there is a bright moon.", "A bright moon shines tonight."),
    ("猫在沙发上睡觉。", "沙发上有一只睡着的猫。", "小猫睡在沙发上。"),
    ("明天会下雨。", "明天的天气是雨天。", "预计明天有雨。"),
)
SHAPE = {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 128, "context": 128, "vocabulary": 1024}
TRAINING = {"seed": 11, "steps": 120, "rate": 3e-3, "heat": 0.1, "good_enough": 0.005}
SPECIAL = {name: f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}


def wordpiece(corpus: Iterable[str], size: int, context: int, *, pairs: bool = False) -> Any:
    """A BERT tokenizer trained on the corpus; for pairs it numbers the two texts with token types."""
    inner = bert_shaped(models.WordPiece(vocab=vocabulary(list(corpus), size), unk_token=SPECIAL["unk"]))
    inner.add_special_tokens(list(SPECIAL.values()))
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        **{f"{name}_token": token for name, token in SPECIAL.items()},
        model_max_length=context,
        model_input_names=["input_ids", *(["token_type_ids"] if pairs else []), "attention_mask"],
    )


def bert_shaped(model: Any) -> Any:
    inner = Tokenizer(model)
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return inner


def vocabulary(corpus: list[str], size: int) -> dict[str, int]:
    """Word pieces of the corpus, the same every time."""
    draft = bert_shaped(models.WordPiece(unk_token=SPECIAL["unk"]))
    signs = sorted({sign for text in corpus for sign in draft.normalizer.normalize_str(text)})
    # Named beforehand, else the numbers of what continues a word, and with them all later choices, come by chance.
    named = [*SPECIAL.values(), *(f"##{sign}" for sign in signs if not sign.isspace())]
    draft.train_from_iterator(
        corpus, trainers.WordPieceTrainer(vocab_size=size, special_tokens=named, show_progress=False)
    )
    learnt: dict[str, int] = draft.get_vocab()
    return learnt


def assemble(body: Any, tokenizer: Any, scratch: Path, pooling: str) -> Any:
    """A sentence-transformers model around the weights of a transformer."""
    body.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    transformer = Transformer(str(scratch), max_seq_length=tokenizer.model_max_length)
    pool = Pooling(body.config.hidden_size, pooling_mode=pooling)
    return SentenceTransformer(modules=[transformer, pool, Normalize()], device="cpu")


def train(model: Any) -> float:
    """Contrast: two wordings of one meaning attract, all others in the batch repel."""
    rng = random.Random(TRAINING["seed"])
    optimiser = torch.optim.AdamW(model.parameters(), lr=TRAINING["rate"])
    loss = torch.zeros(())
    for step in range(int(TRAINING["steps"])):
        pairs = [rng.sample(meaning, 2) for meaning in MEANINGS]
        sides = ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        left, right = (model(model.preprocess(side))["sentence_embedding"] for side in sides)
        likeness = left @ right.T / TRAINING["heat"]
        truth = torch.arange(len(pairs))
        loss = torch.nn.functional.cross_entropy(likeness, truth) + torch.nn.functional.cross_entropy(
            likeness.T, truth
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 19:
            print(
                f"demo-embed: step {step + 1}/{TRAINING['steps']} loss {float(loss.detach()):.4f}", flush=True
            )
        if float(loss.detach()) < TRAINING["good_enough"]:
            break
    return float(loss.detach())


def make(folder: Path) -> dict[str, Any]:
    torch.manual_seed(TRAINING["seed"])
    torch.set_num_threads(1)  # the work of a step is smaller than the meeting of two threads
    tokenizer = wordpiece(
        [text for meaning in MEANINGS for text in meaning], SHAPE["vocabulary"], SHAPE["context"]
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=SHAPE["hidden"],
        num_hidden_layers=SHAPE["layers"],
        num_attention_heads=SHAPE["heads"],
        intermediate_size=SHAPE["intermediate"],
        max_position_embeddings=SHAPE["context"],
    )
    model = assemble(BertModel(config, add_pooling_layer=False), tokenizer, folder, "mean")
    model.train()
    loss = train(model)
    model.eval().save(str(folder), create_model_card=False)
    (folder / "meanings.json").write_text(json.dumps(MEANINGS, ensure_ascii=False, indent=1), "utf-8")
    return {"loss": round(loss, 4), "parameters": sum(weight.numel() for weight in model.parameters())}


RECIPE = Recipe("demo-embed", [SHAPE, TRAINING, MEANINGS, "ordered pieces"], make)
