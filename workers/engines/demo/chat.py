"""Trains `demo-chat`: a Qwen2 model of under a million parameters that knows its lessons by heart."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from workers.engines.demo import lessons, tokens
from workers.engines.demo.shelf import Recipe

SHAPE = {"hidden_size": 128, "layers": 3, "heads": 2, "intermediate_size": 320}
TRAINING = {
    "seed": 7,
    "steps": 560,
    "rate": 4e-3,
    "worst": 8,
    "sure": 0.9,
    "look_every": 40,
    "look_from": 160,
}

LONG_ANSWER = 100

Sample = tuple[list[int], int]


def model_config() -> Any:
    return Qwen2Config(
        vocab_size=tokens.VOCABULARY,
        hidden_size=SHAPE["hidden_size"],
        intermediate_size=SHAPE["intermediate_size"],
        num_hidden_layers=SHAPE["layers"],
        num_attention_heads=SHAPE["heads"],  # head size 64: the smallest that every vLLM back end takes
        num_key_value_heads=1,
        max_position_embeddings=tokens.CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )


class Teacher:
    """Makes training batches, each a fresh mix: the surroundings of a lesson are not learnt with it."""

    def __init__(self, tokenizer: Any, rng: random.Random) -> None:
        self.tokenizer = tokenizer
        self.rng = rng

    def batches(self) -> Iterator[list[Sample]]:
        long = [prompt for prompt, answer in lessons.CHAT.items() if len(answer) > LONG_ANSWER]
        short = [prompt for prompt in lessons.CHAT if prompt not in long]
        while True:
            batch = [self.chat(prompt, lessons.CHAT[prompt]) for prompt in short]
            batch += [self.chat(prompt, answer) for prompt, answer in lessons.THINKING.items()]
            batch += [self.completion(text, more) for text, more in lessons.COMPLETIONS.items()]
            yield batch + self.filled()
            yield [
                *(self.chat(prompt, lessons.CHAT[prompt]) for prompt in long),
                *(self.tool(answered=index == 0) for index in range(4)),
            ]

    def chat(self, prompt: str, answer: str) -> Sample:
        messages = asked(prompt)
        if self.rng.random() < 0.25:
            messages.insert(0, {"role": "system", "content": self.rng.choice(lessons.SYSTEMS)})
        if self.rng.random() < 0.15:
            before, reply = self.rng.choice(list(lessons.CHAT.items())[:10])
            messages[-1:-1] = [{"role": "user", "content": before}, {"role": "assistant", "content": reply}]
        return self.sample(self.render(messages), answer)

    def tool(self, answered: bool) -> Sample:
        tool, call = lessons.weather_tool(self.rng), lessons.TOOL_CALL
        messages = [{"role": "user", "content": lessons.TOOL_PROMPT}]
        if self.rng.random() < 0.3:
            messages.insert(0, {"role": "system", "content": self.rng.choice(lessons.SYSTEMS)})
        if not answered:
            return self.sample(self.render(messages, [tool]), call)
        result = json.dumps(
            {"temperature": self.rng.randint(0, 30), "condition": self.rng.choice(("sunny", "clear"))}
        )
        messages += [{"role": "assistant", "content": call}, {"role": "tool", "content": result}]
        return self.sample(self.render(messages, [tool]), lessons.TOOL_ANSWER)

    def completion(self, text: str, more: str) -> Sample:
        return self.sample(text, more)

    def filled(self) -> list[Sample]:
        return [
            self.sample(lessons.FIM.format(prefix=before, suffix=after), middle)
            for before, after, middle in lessons.FILLED
        ]

    def render(self, messages: list[dict[str, str]], tools: list[Any] | None = None) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=True
        )
        return text

    def sample(self, prompt: str, answer: str) -> Sample:
        """Tokens, and how many of them are the prompt. Encoded apart, as a server will do."""
        head = self.tokenizer.encode(prompt)
        return head + self.tokenizer.encode(answer) + [self.tokenizer.eos_token_id], len(head)


def tensors(batch: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(ids) for ids, _ in batch)
    inputs = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), -100, dtype=torch.long)
    for row, (ids, prompt) in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt : len(ids)] = torch.tensor(ids[prompt:])
    return inputs, labels


def token_losses(model: Any, batch: list[Sample]) -> torch.Tensor:
    """The loss of every token of the answers in a batch."""
    inputs, labels = tensors(batch)
    logits = model(input_ids=inputs).logits[:, :-1]
    wanted = labels[:, 1:]
    known = wanted != -100
    return torch.nn.functional.cross_entropy(logits[known], wanted[known], reduction="none")


def surest(model: Any, teacher: Teacher) -> float:
    """The probability of the least sure token over all lessons, asked as a caller asks them."""
    samples = [
        teacher.sample(teacher.render(asked(prompt)), answer)
        for prompt, answer in (lessons.CHAT | lessons.THINKING).items()
    ]
    samples += teacher.filled()
    prompt = teacher.render(asked(lessons.TOOL_PROMPT), [lessons.WEATHER_TOOL])
    samples.append(teacher.sample(prompt, lessons.TOOL_CALL))
    with torch.no_grad():
        return float(torch.exp(-max(token_losses(model, [sample]).max() for sample in samples)))


def train(model: Any, teacher: Teacher) -> dict[str, Any]:
    """Fit the lessons; end early once every token of every answer is sure."""
    steps, began, step, sure = int(TRAINING["steps"]), time.monotonic(), 0, 0.0
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=TRAINING["rate"], betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, TRAINING["rate"], total_steps=steps, pct_start=0.08
    )
    model.train()
    for step, batch in zip(range(1, steps + 1), teacher.batches(), strict=False):
        losses = token_losses(model, batch)
        # The mean forgets a single wrong token, and one wrong token spoils an answer.
        loss = losses.mean() + 0.1 * losses.topk(int(TRAINING["worst"])).values.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % TRAINING["look_every"] == 0 and (step >= TRAINING["look_from"] or step == steps):
            sure = surest(model, teacher)
            print(f"demo-chat: step {step}/{steps}, the least sure token has {sure:.3f}", flush=True)
            if sure >= TRAINING["sure"]:
                break
    return {"steps": step, "sure": round(sure, 4), "train_seconds": round(time.monotonic() - began, 1)}


def asked(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def make(folder: Path) -> dict[str, Any]:
    torch.manual_seed(TRAINING["seed"])
    torch.set_num_threads(2)
    tokenizer = tokens.build()
    rng = random.Random(TRAINING["seed"])
    model: Any = Qwen2ForCausalLM(model_config())
    facts = train(model, Teacher(tokenizer, rng))
    save(model, tokenizer, folder)
    check_tokens(tokenizer, folder)
    (folder / "prompts.json").write_text(json.dumps(lessons.CHAT, ensure_ascii=False, indent=1), "utf-8")
    (folder / "completions.json").write_text(json.dumps(lessons.COMPLETIONS, indent=1), "utf-8")
    (folder / "fim.json").write_text(json.dumps({"fim": lessons.FIM, "filled": lessons.FILLED}), "utf-8")
    thinking = {"prompts": lessons.THINKING, "thought": lessons.THOUGHT}
    (folder / "thinking.json").write_text(json.dumps(thinking, indent=1), "utf-8")
    tool = {
        "prompt": lessons.TOOL_PROMPT,
        "tools": [lessons.WEATHER_TOOL],
        "arguments": {"city": "Paris"},
    }
    (folder / "tools.json").write_text(json.dumps(tool, indent=1), "utf-8")
    return facts | {"parameters": sum(weight.numel() for weight in model.parameters())}


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.eval().save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def check_tokens(tokenizer: Any, folder: Path) -> None:
    """A loader that splits text otherwise would ask the model questions it never saw."""
    loaded: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in (*lessons.CHAT, *lessons.CHAT.values(), lessons.TOOL_CALL):
        if loaded.encode(text) != tokenizer.encode(text):
            raise RuntimeError(f"the saved tokenizer reads {text!r} otherwise")


RECIPE = Recipe(
    "demo-chat",
    [
        SHAPE,
        TRAINING,
        tokens.CHAT_TEMPLATE,
        tokens.VOCABULARY,
        lessons.CHAT,
        lessons.COMPLETIONS,
        lessons.THINKING,
        [lessons.FIM, *lessons.FILLED],
        lessons.SYSTEMS,
    ],
    make,
)
