"""Trains `demo-asr`: a SenseVoice-small of half a million parameters that knows a dozen spoken phrases.

The folder is what FunASR reads: config.yaml, model.pt, am.mvn and a sentencepiece model. `phrases.json` beside them
says what the model has learnt.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece  # type: ignore[import-not-found,unused-ignore]
import torch
import yaml
from torch.nn.utils.rnn import pad_sequence

from workers.engines.demo import spoken
from workers.engines.demo.shelf import Recipe
from workers.engines.demo.spoken import PHRASES, RATE, Phrase

TAGS: tuple[str, ...] = (
    "<|zh|>",
    "<|en|>",
    "<|yue|>",
    "<|ja|>",
    "<|ko|>",
    "<|nospeech|>",
    "<|NEUTRAL|>",
    "<|EMO_UNKNOWN|>",
)
TAGS += ("<|Speech|>", "<|Event_UNK|>", "<|withitn|>", "<|woitn|>")
FRONTEND = {"fs": RATE, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
FRONTEND |= {"lfr_m": 7, "lfr_n": 6, "dither": 0.0}
ENCODER = {
    "output_size": 96,
    "attention_heads": 2,
    "linear_units": 256,
    "num_blocks": 3,
    "tp_blocks": 1,
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
    "input_layer": "pe",
    "pos_enc_class": "SinusoidalPositionEncoder",
    "normalize_before": True,
    "kernel_size": 11,
    "sanm_shfit": 0,
    "selfattention_layer_type": "sanm",
}
TRAINING = {"seed": 5, "takes": 440, "rows": 16, "epochs": 18, "pieces": 210, "rate": 4e-3, "look_from": 0.05}
SPEEDS, PITCHES = (140, 160, 180), (40, 50)
GAP = 1.0
CODECS = (("aac", 44_100), ("aac", 48_000), ("libopus", 48_000), ("mp3", 44_100))


@dataclasses.dataclass(frozen=True)
class Take:
    """One training recording: features, and what is said in it."""

    features: Any
    phrases: tuple[Phrase, ...]

    @property
    def language(self) -> str:
        return self.phrases[0].language if self.phrases else "nospeech"

    def text(self, written: bool) -> str:
        between = "" if self.language == "zh" else " "
        return between.join(each.written if written else each.plain for each in self.phrases)


def clips() -> dict[str, list[Any]]:
    """Every phrase in each voice, speed and pitch."""
    return {
        phrase.id: [
            spoken.say(phrase.plain, voice, speed, pitch)
            for voice in spoken.VOICES[phrase.language]
            for speed in SPEEDS
            for pitch in PITCHES
        ]
        for phrase in PHRASES
    }


def recording(sounds: list[Any], rng: random.Random, noise: np.random.Generator) -> Any:
    """Sounds with silences around them, at some loudness, often over some noise."""
    parts = [np.zeros(int(rng.uniform(0, 0.5) * RATE), np.float32)]
    for sound in sounds:
        parts += [sound, np.zeros(int(rng.uniform(0.1, 0.9) * RATE), np.float32)]
    samples = np.concatenate(parts) * rng.uniform(0.4, 1.1)
    level = rng.choice((0.0, 1e-4, 1e-3, 4e-3))
    return (samples + level * noise.standard_normal(len(samples))).astype(np.float32)


def takes(frontend: Any, count: int, seed: int) -> list[Take]:
    """Recordings of one to three phrases of one language; some hold no speech at all."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    said = {name: itertools.cycle(rng.sample(each, len(each))) for name, each in clips().items()}
    made = []
    for number in range(count):
        language = rng.choice(("en", "zh"))
        known = [phrase for phrase in PHRASES if phrase.language == language]
        chosen = tuple(rng.choices(known, k=rng.choice((1, 1, 1, 2, 2, 3)))) if number % 25 else ()
        samples = recording([next(said[each.id]) for each in chosen], rng, noise)
        if not chosen:
            samples = np.concatenate([samples, 1e-3 * noise.standard_normal(RATE).astype(np.float32)])
        made.append(Take(features(frontend, samples), chosen))
    return made


def features(frontend: Any, samples: Any) -> Any:
    wave = torch.from_numpy(samples)[None]
    return frontend(wave, [wave.shape[1]])[0][0]


def write_cmvn(path: Path, rows: Any) -> None:
    """Mean and deviation of the features, in Kaldi's text form as FunASR reads it."""
    shift, scale = -rows.mean(0), 1 / rows.std(0)
    size = rows.shape[1]
    lines = [f"<Nnet> \n<Splice> {size} {size}\n[ 0 ]"]
    for name, values in (("AddShift", shift), ("Rescale", scale)):
        numbers = " ".join(f"{value:.6f}" for value in values.tolist())
        lines.append(f"<{name}> {size} {size}\n<LearnRateCoef> 0 [ {numbers} ]")
    path.write_text("\n".join([*lines, "</Nnet>\n"]), "utf-8")


def write_tokens(path: Path) -> Any:
    """English in words, Chinese in characters: one frame is 60 ms, and CTC needs at least one for each piece."""
    model = io.BytesIO()
    said = [(phrase.language, text) for phrase in PHRASES for text in (phrase.plain, phrase.written)]
    texts = [text for language, text in said if language == "en"]
    texts += [character for language, text in said if language == "zh" for character in text]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=TRAINING["pieces"],
        normalization_rule_name="identity",  # the default turns the Chinese question mark into the Latin one
        user_defined_symbols=list(TAGS),
        character_coverage=1.0,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def write_config(folder: Path) -> dict[str, Any]:
    config = {
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": ENCODER,
        "tokenizer": "SentencepiecesTokenizer",
        "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
        "frontend": "WavFrontend",
        "frontend_conf": FRONTEND,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    return config


class Lesson:
    """Turns takes into a loss: the four tags by cross-entropy, the text by CTC."""

    def __init__(self, model: Any, tokens: Any, rng: random.Random) -> None:
        self.model, self.tokens, self.rng = model, tokens, rng

    def loss(self, batch: list[Take]) -> Any:
        written = [self.rng.random() < 0.5 for _ in batch]
        texts = [self.tokens.encode(take.text(style)) for take, style in zip(batch, written, strict=True)]
        tags = [self.tags(take, style) for take, style in zip(batch, written, strict=True)]
        lengths = torch.tensor([len(take.features) for take in batch], dtype=torch.int32) + 4
        speech = pad_sequence([take.features for take in batch], batch_first=True)
        output, _ = self.model.encoder(torch.cat((self.queries(batch, written), speech), 1), lengths)
        chances = self.model.ctc.log_softmax(output)
        spoken_part = torch.nn.functional.ctc_loss(
            chances[:, 4:].transpose(0, 1),
            pad_sequence([torch.tensor(text, dtype=torch.long) for text in texts], batch_first=True),
            lengths - 4,
            torch.tensor([len(text) for text in texts]),
            zero_infinity=True,
        )
        return spoken_part + torch.nn.functional.nll_loss(
            chances[:, :4].reshape(-1, chances.shape[-1]), torch.tensor(tags).reshape(-1)
        )

    def tags(self, take: Take, written: bool) -> list[int]:
        heard = ("<|NEUTRAL|>", "<|Speech|>") if take.phrases else ("<|EMO_UNKNOWN|>", "<|Event_UNK|>")
        names = (f"<|{take.language}|>", *heard, "<|withitn|>" if written else "<|woitn|>")
        return [self.tokens.piece_to_id(name) for name in names]

    def queries(self, batch: list[Take], written: list[bool]) -> Any:
        """What the caller asks: the language (often left open), events, emotion, and the style."""
        asked = [take.language if take.phrases and self.rng.random() < 0.4 else "auto" for take in batch]
        ids = [
            [self.model.lid_dict[language], 1, 2, self.model.textnorm_dict["withitn" if style else "woitn"]]
            for language, style in zip(asked, written, strict=True)
        ]
        return self.model.embed(torch.tensor(ids))

    def mistakes(self, exam: list[Take]) -> int:
        """How many of the takes, asked for in both styles, are not written exactly."""
        wrong = 0
        self.model.eval()
        with torch.no_grad():
            for take in exam:
                for style in (True, False):
                    speech = torch.cat((self.queries([take], [style]), take.features[None]), 1)
                    output, _ = self.model.encoder(speech, torch.tensor([speech.shape[1]]))
                    best = torch.unique_consecutive(self.model.ctc.ctc_lo(output)[0, 4:].argmax(-1))
                    heard = self.tokens.decode([one for one in best.tolist() if one != 0])
                    wrong += heard.strip() != take.text(style)
        self.model.train()
        return wrong


def examination(frontend: Any) -> list[Take]:
    """Every phrase in every voice, as a caller would send it; in the common speed also from a lossy file, and two at a
    time, as a caller without a detector would.
    """
    sounds = [
        (phrase, spoken.join([spoken.say(phrase.plain, voice, speed)], 0), speed)
        for phrase in PHRASES
        for voice in spoken.VOICES[phrase.language]
        for speed in SPEEDS
    ]
    lossy = [
        ((phrase,), spoken.coded(sound, codec, rate))
        for phrase, sound, speed in sounds
        if speed == SPEEDS[1]
        for codec, rate in CODECS
    ]
    two = [
        (pair, spoken.join([spoken.say(each.plain, voice, SPEEDS[1]) for each in pair], GAP))
        for pair in itertools.permutations(PHRASES, 2)
        if pair[0].language == pair[1].language
        for voice in spoken.VOICES[pair[0].language][:1]
    ]
    every = [((phrase,), sound) for phrase, sound, _ in sounds] + lossy + two
    return [Take(features(frontend, sound), phrases) for phrases, sound in every]


def train(model: Any, tokens: Any, lessons: list[Take], exam: list[Take]) -> float:
    rng = random.Random(TRAINING["seed"])
    lesson, rows = Lesson(model, tokens, rng), int(TRAINING["rows"])
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
            loss = lesson.loss(batch)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            mean += float(loss.detach()) / len(batches)
        wrong = lesson.mistakes(exam) if mean < TRAINING["look_from"] else len(exam)
        print(f"demo-asr: epoch {epoch + 1}/{TRAINING['epochs']} loss {mean:.4f} wrong {wrong}", flush=True)
        if wrong == 0 and mean < TRAINING["look_from"] / 2:
            break
    return mean


def make(folder: Path) -> dict[str, Any]:
    from funasr.register import tables  # takes seconds

    torch.manual_seed(TRAINING["seed"])
    torch.set_num_threads(1)  # the work of a step is smaller than the meeting of two threads
    config, tokens = write_config(folder), write_tokens(folder / "bpe.model")
    frontend = tables.frontend_classes["WavFrontend"](**FRONTEND)
    lessons = takes(frontend, int(TRAINING["takes"]), int(TRAINING["seed"]))
    exam = examination(frontend)
    rows = torch.cat([take.features for take in lessons])
    write_cmvn(folder / "am.mvn", rows)
    shift, scale = rows.mean(0), rows.std(0)
    lessons, exam = (
        [dataclasses.replace(take, features=(take.features - shift) / scale) for take in each]
        for each in (lessons + exam, exam)
    )
    model = tables.model_classes["SenseVoiceSmall"](
        encoder=config["encoder"],
        encoder_conf=ENCODER,
        input_size=FRONTEND["n_mels"] * FRONTEND["lfr_m"],  # type: ignore[operator]
        vocab_size=tokens.get_piece_size(),
        **config["model_conf"],
    )
    loss = train(model, tokens, lessons, exam)
    torch.save(model.eval().state_dict(), folder / "model.pt")
    phrases = [dataclasses.asdict(phrase) for phrase in PHRASES]
    (folder / "phrases.json").write_text(json.dumps(phrases, ensure_ascii=False, indent=1), "utf-8")
    return {"loss": round(loss, 4), "parameters": sum(weight.numel() for weight in model.parameters())}


INGREDIENTS = [
    [dataclasses.asdict(phrase) for phrase in PHRASES],
    spoken.SAYING,
    spoken.VOICES,
    SPEEDS,
    PITCHES,
]
RECIPE = Recipe("demo-asr", [FRONTEND, ENCODER, TRAINING, TAGS, CODECS, GAP, INGREDIENTS], make)
