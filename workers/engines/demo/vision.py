"""Trains `demo-vision`: a LLaVA model of under a million parameters that names the colour of a picture.

Its parts are the real ones: a CLIP tower, a projector, a Qwen2 model, and a processor that works without torchvision.
It knows the lessons below and nothing else.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
    Qwen2Config,
)

from workers.engines.demo import tokens
from workers.engines.demo.shelf import Recipe

COLOURS = {
    "red": (215, 25, 30),
    "green": (30, 165, 60),
    "blue": (30, 60, 215),
    "yellow": (240, 220, 40),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
}
ONE, TWO = "What colour is this?", "What colours are these?"
WORDS = {"Say hello.": "Hello, I look at pictures.", "Name two colours.": "red and blue"}
SHAPE = {"hidden": 96, "layers": 2, "heads": 2, "intermediate": 192, "side": 32, "patch": 16, "context": 1024}
TRAINING = {"seed": 13, "steps": 400, "rate": 3e-3, "good_enough": 0.01, "look_every": 20}
MARK = "<image>"

CHAT_TEMPLATE = """\
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

Sample = tuple[str, str, list[str]]


def model_config(words: Any) -> Any:
    sides = {"hidden_size": SHAPE["hidden"], "intermediate_size": SHAPE["intermediate"]}
    tower = CLIPVisionConfig(
        **sides,
        num_hidden_layers=SHAPE["layers"],
        num_attention_heads=SHAPE["heads"],
        image_size=SHAPE["side"],
        patch_size=SHAPE["patch"],
        projection_dim=SHAPE["hidden"],
    )
    text = Qwen2Config(
        **sides,
        vocab_size=len(words),
        num_hidden_layers=SHAPE["layers"],
        num_attention_heads=SHAPE["heads"],
        num_key_value_heads=SHAPE["heads"],
        max_position_embeddings=SHAPE["context"],
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    mark = words.convert_tokens_to_ids(MARK)
    return LlavaConfig(vision_config=tower, text_config=text, image_token_index=mark, vision_feature_layer=-1)


def build_processor() -> Any:
    words = tokens.build()
    words.add_special_tokens({"additional_special_tokens": [MARK]})
    words.chat_template = CHAT_TEMPLATE
    side = SHAPE["side"]
    looks = LlavaImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return LlavaProcessor(
        looks,
        words,
        patch_size=SHAPE["patch"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=MARK,
        chat_template=CHAT_TEMPLATE,
    )


@dataclass
class Teacher:
    """Makes batches of samples of one kind, so that all have the same number of pictures."""

    processor: Any
    rng: random.Random

    def picture(self, colour: str) -> Any:
        """A picture of nearly one colour, of any shape."""
        level = [min(255, max(0, part + self.rng.randint(-12, 12))) for part in COLOURS[colour]]
        return Image.new("RGB", (self.rng.randint(24, 80), self.rng.randint(24, 80)), tuple(level))

    def samples(self, kind: int, count: int) -> list[Sample]:
        if kind == 0:
            return [(question, WORDS[question], []) for question in WORDS for _ in range(count // len(WORDS))]
        drawn = [self.rng.choices(list(COLOURS), k=kind) for _ in range(count)]
        return [(ONE if kind == 1 else TWO, ", ".join(colours), colours) for colours in drawn]

    def batch(self, kind: int, count: int) -> dict[str, torch.Tensor]:
        samples = self.samples(kind, count)
        pictures = [self.picture(colour) for _, _, colours in samples for colour in colours]
        texts = [self.text(sample) for sample in samples]
        inputs = self.processor(images=pictures or None, text=texts, return_tensors="pt", padding=True)
        labels = inputs["input_ids"].clone()
        for row, (_, answer, _) in enumerate(samples):
            said = len(self.processor.tokenizer.encode(answer)) + 1
            whole = int(inputs["attention_mask"][row].sum())
            labels[row, : whole - said] = -100
            labels[row, whole:] = -100
        return {**inputs, "labels": labels}

    def text(self, sample: Sample) -> str:
        """A conversation up to the end of its answer. Text and pictures come in either order."""
        question, answer, colours = sample
        parts = [{"type": "text", "text": question}, *({"type": "image"} for _ in colours)]
        if self.rng.random() < 0.5:
            parts = parts[1:] + parts[:1]
        asked = self.processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )
        return f"{asked}{answer}{self.processor.tokenizer.eos_token}"


def train(model: Any, teacher: Teacher) -> dict[str, Any]:
    """Fit the lessons; end early once every token of every answer is sure."""
    steps, began, step, worst = int(TRAINING["steps"]), time.monotonic(), 0, 0.0
    optimiser = torch.optim.AdamW(model.parameters(), lr=TRAINING["rate"], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, TRAINING["rate"], total_steps=steps, pct_start=0.1
    )
    model.train()
    for step in range(1, steps + 1):
        # Pictures in pairs are the hard part: which comes first.
        losses = [model(**teacher.batch(kind, count)).loss for kind, count in ((0, 2), (1, 12), (2, 20))]
        optimiser.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        worst = max(worst, *(float(loss.detach()) for loss in losses))
        if step % TRAINING["look_every"] == 0:
            print(f"demo-vision: step {step}/{steps}, loss at most {worst:.4f}", flush=True)
            if worst < TRAINING["good_enough"]:
                break
            worst = 0.0
    return {"steps": step, "loss": round(worst, 4), "train_seconds": round(time.monotonic() - began, 1)}


def make(folder: Path) -> dict[str, Any]:
    torch.manual_seed(TRAINING["seed"])
    torch.set_num_threads(1)  # the work of a step is smaller than the meeting of two threads
    processor = build_processor()
    words = processor.tokenizer
    model: Any = LlavaForConditionalGeneration(model_config(words))
    facts = train(model, Teacher(processor, random.Random(TRAINING["seed"])))
    ends = [words.eos_token_id, words.pad_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=words.pad_token_id)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return facts | {"parameters": sum(weight.numel() for weight in model.parameters())}


RECIPE = Recipe("demo-vision", [COLOURS, ONE, TWO, WORDS, SHAPE, TRAINING, CHAT_TEMPLATE], make)
