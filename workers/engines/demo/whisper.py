"""Trains `demo-whisper`: a tiny Whisper that writes a few of the spoken phrases and translates the Mandarin ones.

The folder is what transformers reads: configuration, weights, tokenizer with Whisper's special tokens, feature
extractor. It hears six seconds at a time where the published ones hear thirty. `phrases.json` says what it knows.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workers.engines.demo import asr, spoken
from workers.engines.demo.shelf import Recipe
from workers.engines.demo.spoken import BY_ID, RATE, Phrase

KNOWN = ("cat", "nine", "train", "nihao", "weather", "station")
ENGLISH = {
    "nihao": "Hello world.",
    "weather": "The weather is fine today.",
    "station": "Where is the station?",
}
SECONDS = 6
LANGUAGES = ("en", "zh")
END, START, NO_SPEECH, NO_TIMES = "<|endoftext|>", "<|startoftranscript|>", "<|nospeech|>", "<|notimestamps|>"
TASKS = ("<|translate|>", "<|transcribe|>")
OTHERS = ("<|startoflm|>", "<|startofprev|>")
SHAPE = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "num_mel_bins": 80,
    "max_source_positions": SECONDS * 50,
    "max_target_positions": 64,
    "dropout": 0.0,
}
ALIGNMENT_HEADS = [[1, 0], [1, 1]]
TRAINING = {"seed": 7, "takes": 160, "rows": 8, "epochs": 24, "rate": 2e-3, "good_enough": 0.016}


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What is heard, and what is to be written: after the start token the language, the task, and the text."""

    features: Any
    phrase: Phrase | None

    def text(self, task: str) -> str:
        """Whisper's texts begin with a space where words do."""
        if self.phrase is None:
            return ""
        if self.phrase.language == "zh":
            return f" {ENGLISH[self.phrase.id]}" if task == "<|translate|>" else self.phrase.written
        return f" {self.phrase.written}"


def special_tokens() -> list[str]:
    tongues = [f"<|{language}|>" for language in LANGUAGES]
    return [START, *tongues, *TASKS, *OTHERS, NO_SPEECH, NO_TIMES]


def tokenizer() -> Any:
    """Byte-level merges over the phrases, then Whisper's own tokens in its order."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import WhisperTokenizer

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=380, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    texts = [f" {BY_ID[name].written}" for name in KNOWN] + [f" {text}" for text in ENGLISH.values()]
    inner.train_from_iterator(texts * 4, trainer)
    plain = json.loads(inner.to_str())["model"]
    vocabulary = plain["vocab"] | {END: len(plain["vocab"])}
    made = WhisperTokenizer(vocab=vocabulary, merges=[tuple(each) for each in plain["merges"]], pad_token=END)
    made.add_special_tokens({"additional_special_tokens": special_tokens()})
    made.add_tokens([f"<|{place * 0.02:.2f}|>" for place in range(SECONDS * 50 + 1)])
    return made


def lessons(extractor: Any) -> list[Lesson]:
    rng, noise = random.Random(TRAINING["seed"]), np.random.default_rng(int(TRAINING["seed"]))
    said = asr.clips()
    made = []
    for number in range(int(TRAINING["takes"])):
        phrase = BY_ID[KNOWN[number % len(KNOWN)]] if number % 20 else None
        sounds = [] if phrase is None else [rng.choice(said[phrase.id])]
        samples = asr.recording(sounds, rng, noise)
        if phrase is None:
            samples = np.concatenate([samples, 1e-3 * noise.standard_normal(RATE).astype(np.float32)])
        made.append(Lesson(heard(extractor, samples), phrase))
    return made


def heard(extractor: Any, samples: Any) -> Any:
    return extractor(samples, sampling_rate=RATE, return_tensors="pt").input_features[0]


class Teacher:
    """Batches of lessons, each to be written or translated."""

    def __init__(self, tokens: Any, rng: random.Random) -> None:
        self.tokens, self.rng = tokens, rng

    def number(self, token: str) -> int:
        return int(self.tokens.convert_tokens_to_ids(token))

    def line(self, lesson: Lesson) -> list[int]:
        """The whole sequence; sound without speech ends after the token that says so."""
        if lesson.phrase is None:
            return [self.number(each) for each in (START, NO_SPEECH, END)]
        task = self.rng.choice(TASKS)
        head = (START, f"<|{lesson.phrase.language}|>", task, NO_TIMES)
        text = self.tokens.encode(lesson.text(task), add_special_tokens=False)
        return [*(self.number(each) for each in head), *text, self.number(END)]

    def loss(self, model: Any, batch: list[Lesson]) -> Any:
        lines = [torch.tensor(self.line(each)) for each in batch]
        pad = torch.nn.utils.rnn.pad_sequence
        inputs = pad([each[:-1] for each in lines], batch_first=True, padding_value=self.number(END))
        wanted = pad([each[1:] for each in lines], batch_first=True, padding_value=-100)
        # The task is asked for, never guessed; the marker of times follows from it.
        wanted[:, 1:3] = torch.where(inputs[:, 1:2] == self.number(NO_SPEECH), wanted[:, 1:3], -100)
        scores = model(
            input_features=torch.stack([each.features for each in batch]), decoder_input_ids=inputs
        )
        return torch.nn.functional.cross_entropy(scores.logits.transpose(1, 2), wanted)


def train(model: Any, tokens: Any, taught: list[Lesson]) -> float:
    rng, rows = random.Random(TRAINING["seed"]), int(TRAINING["rows"])
    teacher, mean = Teacher(tokens, rng), 0.0
    steps = int(TRAINING["epochs"]) * -(-len(taught) // rows)
    optimiser = torch.optim.AdamW(model.parameters(), lr=TRAINING["rate"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, TRAINING["rate"], total_steps=steps, pct_start=0.2
    )
    model.train()
    for epoch in range(int(TRAINING["epochs"])):
        order = rng.sample(taught, len(taught))
        batches = [order[at : at + rows] for at in range(0, len(order), rows)]
        mean = 0.0
        for batch in batches:
            loss = teacher.loss(model, batch)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            mean += float(loss.detach()) / len(batches)
        print(f"demo-whisper: epoch {epoch + 1}/{TRAINING['epochs']} loss {mean:.4f}", flush=True)
        if mean < TRAINING["good_enough"]:
            break
    return mean


def generation(tokens: Any) -> Any:
    """What Whisper's folders say about decoding: the numbers of its tokens, and what never begins a text."""
    from transformers import GenerationConfig

    numbers = {token: int(tokens.convert_tokens_to_ids(token)) for token in (END, *special_tokens())}
    return GenerationConfig(
        is_multilingual=True,
        decoder_start_token_id=numbers[START],
        eos_token_id=numbers[END],
        bos_token_id=numbers[END],
        pad_token_id=numbers[END],
        no_timestamps_token_id=numbers[NO_TIMES],
        lang_to_id={f"<|{language}|>": numbers[f"<|{language}|>"] for language in LANGUAGES},
        task_to_id={"translate": numbers[TASKS[0]], "transcribe": numbers[TASKS[1]]},
        suppress_tokens=[numbers[each] for each in special_tokens()],
        begin_suppress_tokens=[numbers[END]],
        alignment_heads=ALIGNMENT_HEADS,
        max_length=SHAPE["max_target_positions"],
        return_timestamps=False,
    )


def make(folder: Path) -> dict[str, Any]:
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    torch.manual_seed(int(TRAINING["seed"]))
    torch.set_num_threads(1)
    tokens, extractor = tokenizer(), WhisperFeatureExtractor(chunk_length=SECONDS)
    end = int(tokens.convert_tokens_to_ids(END))
    config = WhisperConfig(
        vocab_size=len(tokens),
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=int(tokens.convert_tokens_to_ids(START)),
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **SHAPE,
    )
    model = WhisperForConditionalGeneration(config)
    loss = train(model, tokens, lessons(extractor))
    model.generation_config = generation(tokens)
    model.eval().save_pretrained(folder)
    WhisperProcessor(extractor, tokens).save_pretrained(folder)
    phrases = [dataclasses.asdict(BY_ID[name]) | {"english": ENGLISH.get(name)} for name in KNOWN]
    (folder / "phrases.json").write_text(json.dumps(phrases, ensure_ascii=False, indent=1), "utf-8")
    return {"loss": round(loss, 4), "parameters": sum(weight.numel() for weight in model.parameters())}


INGREDIENTS = [
    [dataclasses.asdict(BY_ID[name]) for name in KNOWN],
    ENGLISH,
    spoken.SAYING,
    spoken.VOICES,
    SECONDS,
    LANGUAGES,
]
RECIPE = Recipe("demo-whisper", [SHAPE, TRAINING, ALIGNMENT_HEADS, INGREDIENTS, special_tokens()], make)
