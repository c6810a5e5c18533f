"""Makes `demo-bge-m3`: the files of bge-m3 at a small size. Its weights are random, so its answers are noise of
the right form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from workers.engines.demo.embed import MEANINGS, assemble
from workers.engines.demo.shelf import Recipe

SHAPE = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64, "context": 128, "vocabulary": 600}
WIDTHS = {"sparse": 1, "colbert": 96}
SEED = 29
SPREAD = 1.0  # of the weights: so far apart that each text has a vector of its own
SPECIAL = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}


def sentencepiece() -> Any:
    """An XLM-RoBERTa tokenizer, its special tokens at their usual places."""
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=SHAPE["vocabulary"],
        special_tokens=list(SPECIAL.values()),
        unk_token=SPECIAL["unk"],
        show_progress=False,
    )
    inner.train_from_iterator([text for meaning in MEANINGS for text in meaning], trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        cls_token=SPECIAL["bos"],
        sep_token=SPECIAL["eos"],
        **{f"{name}_token": token for name, token in SPECIAL.items()},
        model_max_length=SHAPE["context"],
        model_input_names=["input_ids", "attention_mask"],
    )


def make(folder: Path) -> dict[str, Any]:
    torch.manual_seed(SEED)
    tokenizer = sentencepiece()
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=SHAPE["hidden"],
        num_hidden_layers=SHAPE["layers"],
        num_attention_heads=SHAPE["heads"],
        intermediate_size=SHAPE["intermediate"],
        # Positions are counted from the one after the padding's.
        max_position_embeddings=SHAPE["context"] + 2,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=SPREAD,
    )
    model = assemble(XLMRobertaModel(config, add_pooling_layer=False), tokenizer, folder, "cls")
    model.eval().save(str(folder), create_model_card=False)
    heads = {name: torch.nn.Linear(SHAPE["hidden"], width) for name, width in WIDTHS.items()}
    texts = [text for meaning in MEANINGS for text in meaning]
    states = torch.cat(model.encode(texts, output_value="token_embeddings"))
    with torch.no_grad():  # so that about half of the tokens have a weight
        heads["sparse"].bias -= heads["sparse"](states).median()
    for name, head in heads.items():
        torch.save(head.state_dict(), folder / f"{name}_linear.pt")
    return {"tokens": len(tokenizer)}


RECIPE = Recipe("demo-bge-m3", [SHAPE, WIDTHS, SEED, SPREAD, MEANINGS], make)
