"""Models for measuring: real shapes and random weights, so speed is real and answers are noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, Qwen2Config, Qwen2ForCausalLM

from workers.engines.demo import tokens
from workers.engines.demo.chat import save
from workers.engines.demo.embed import assemble, wordpiece
from workers.engines.demo.shelf import Recipe

CHAT_SHAPE = {"hidden": 768, "layers": 17, "heads": 12, "kv_heads": 4, "intermediate": 2560, "context": 2048}
EMBED_SHAPE = {
    "hidden": 384,
    "layers": 12,
    "heads": 12,
    "intermediate": 1536,
    "vocabulary": 30522,
    "context": 512,
}
SEED = 3


def words() -> list[str]:
    """A made-up language of 30,000 words, so that the tokenizer has a vocabulary of the usual size."""
    parts = [first + second for first in "bcdfghklmnprstvwz" for second in "aeiou"]
    return [
        one + two + three for one in parts for two in parts for three in parts[:: max(1, len(parts) // 5)]
    ][:36000]


def make_chat(folder: Path) -> dict[str, Any]:
    torch.manual_seed(SEED)
    tokenizer = tokens.build()
    config = Qwen2Config(
        vocab_size=tokens.VOCABULARY,
        hidden_size=CHAT_SHAPE["hidden"],
        intermediate_size=CHAT_SHAPE["intermediate"],
        num_hidden_layers=CHAT_SHAPE["layers"],
        num_attention_heads=CHAT_SHAPE["heads"],
        num_key_value_heads=CHAT_SHAPE["kv_heads"],
        max_position_embeddings=CHAT_SHAPE["context"],
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: Any = Qwen2ForCausalLM(config)
    save(model, tokenizer, folder)
    return {"parameters": sum(weight.numel() for weight in model.parameters())}


def make_embed(folder: Path) -> dict[str, Any]:
    torch.manual_seed(SEED)
    tokenizer = wordpiece(words(), EMBED_SHAPE["vocabulary"], EMBED_SHAPE["context"])
    config = BertConfig(
        vocab_size=EMBED_SHAPE["vocabulary"],
        hidden_size=EMBED_SHAPE["hidden"],
        num_hidden_layers=EMBED_SHAPE["layers"],
        num_attention_heads=EMBED_SHAPE["heads"],
        intermediate_size=EMBED_SHAPE["intermediate"],
        max_position_embeddings=EMBED_SHAPE["context"],
    )
    model = assemble(BertModel(config, add_pooling_layer=False), tokenizer, folder, "cls")
    model.eval().save(str(folder), create_model_card=False)
    return {"parameters": sum(weight.numel() for weight in model.parameters()), "tokens": len(tokenizer)}


CHAT_RECIPE = Recipe(
    "bench-chat-130m", [CHAT_SHAPE, SEED, tokens.CHAT_TEMPLATE, tokens.VOCABULARY], make_chat
)
EMBED_RECIPE = Recipe("bench-embed-small", [EMBED_SHAPE, SEED], make_embed)
