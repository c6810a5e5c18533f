"""Makes `demo-qwen-vision`: Qwen2.5-VL in its real parts, tiny, with random weights.

Its answers mean nothing. It is there because its family also sees videos, which transformers reads with torchvision
only, and because it looks at pictures in their own size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from workers.engines.demo import tokens
from workers.engines.demo.chat import save
from workers.engines.demo.shelf import Recipe

MARKS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
}
VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "num_heads": 2,
    "patch_size": 14,
    "window_size": 56,
    "fullatt_block_indexes": [1],
}
LOOKS = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
    "min_pixels": 56 * 56,
    "max_pixels": 448 * 448,
    "patch_size": 14,
    "merge_size": 2,
    "temporal_patch_size": 2,
}
SEED = 17

CHAT_TEMPLATE = """\
{%- for message in messages %}<|im_start|>{{ message.role }}
{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
{%- else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make(folder: Path) -> dict[str, Any]:
    torch.manual_seed(SEED)
    words = tokens.build()
    words.add_special_tokens({"additional_special_tokens": list(MARKS.values())})
    words.chat_template = CHAT_TEMPLATE
    marks = {name: words.convert_tokens_to_ids(mark) for name, mark in MARKS.items()}
    ends = {"bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    text = TEXT | {"vocab_size": len(words)} | ends
    model: Any = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=VISION, **marks)
    )
    save(model, words, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(LOOKS, indent=1), "utf-8")
    return {"parameters": sum(weight.numel() for weight in model.parameters())}


RECIPE = Recipe("demo-qwen-vision", [MARKS, TEXT, VISION, LOOKS, SEED, CHAT_TEMPLATE], make)
