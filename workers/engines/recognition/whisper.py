"""Whisper from a transformers folder: transcribes in many languages, and translates them into English.

The model hears a window of fixed length (30 s of the published ones), so a segment is at most that long and every
row of a run costs the same. Decoding is the library's, greedy and without timestamps of its own: segments come from
the detector. The encoder runs once; its output also tells the language and whether there is speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.tokenization_whisper import LANGUAGES, _combine_tokens_into_words

from workers.engines.recognition.hearing import Abilities, Features, Heard, Mode, Recogniser, Word
from workers.engines.recognition.sound import RATE

NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
DETECTORS_MARGIN_S = 0.5  # what a detector adds around a span
# Whisper's own rule for sound in which it makes words up: no speech is likely, and the words are not.
SURELY_SILENT, UNLIKELY = 0.6, -1.0


@dataclass(frozen=True)
class Window:
    """`mel` is bins by frames of the whole window; the first `frames` are sound, the rest is padding."""

    mel: Any
    frames: int


class Chances(LogitsProcessor):  # type: ignore[misc,unused-ignore]
    """Keeps the log probability of the likeliest token of each step: keeping all scores would take gigabytes."""

    def __init__(self) -> None:
        self.steps: list[Any] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.steps.append(torch.log_softmax(scores.float(), -1).amax(-1))
        return scores


class Whisper(Recogniser):
    """One Whisper. Raises ValueError when the folder's weights are not those of its configuration."""

    def __init__(self, folder: str, device: str) -> None:
        self.device, self.dtype = device, torch.float32 if device.startswith("cpu") else torch.float16
        self.processor = WhisperProcessor.from_pretrained(folder, local_files_only=True)
        self.model = load_model(folder, self.dtype).to(device).eval()
        self.tokenizer, self.extractor = self.processor.tokenizer, self.processor.feature_extractor
        self.most_s = self.window_s = float(self.extractor.n_samples) / RATE
        self.longest_s = self.most_s - DETECTORS_MARGIN_S
        self.rules = self.model.generation_config
        self.tongues = dict(getattr(self.rules, "lang_to_id", None) or {})
        several = bool(getattr(self.rules, "is_multilingual", self.tongues)) and bool(self.tongues)
        self.tongues = self.tongues if several else {}
        self.abilities = Abilities(
            tuple(name[2:-2] for name in self.tongues) or ("en",),
            detects_language=several,
            words=bool(getattr(self.rules, "alignment_heads", None)),
            always_itn=True,
            translates=several and "translate" in (getattr(self.rules, "task_to_id", None) or {}),
        )
        known = self.tokenizer.get_vocab()
        self.silence = next((known[name] for name in NO_SPEECH if name in known), None)

    def writes_marks(self, mode: Mode) -> bool:
        return True

    def features(self, samples: Any) -> Features:
        made = self.extractor(
            samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, padding="max_length"
        )
        return Window(made.input_features[0], int(made.attention_mask[0].sum()))

    def recognise(self, batch: Sequence[Features], mode: Mode) -> Sequence[Heard]:
        with torch.inference_mode():
            mels = torch.stack([each.mel for each in batch]).to(self.device, self.dtype)
            encoded = self.model.get_encoder()(mels)
            scores = self.first_step(encoded, len(batch))
            silent = (
                [None] * len(batch) if self.silence is None else scores.softmax(-1)[:, self.silence].tolist()
            )
            tongues = self.spoken(scores, mode)
            frames = torch.tensor([each.frames for each in batch], device=self.device)
            return self.write(encoded, frames, tongues, silent, mode)

    def first_step(self, encoded: Any, rows: int) -> Any:
        """Scores of what follows the start: a language, or that there is no speech."""
        start = torch.full((rows, 1), self.rules.decoder_start_token_id, device=self.device)
        output = self.model(encoder_outputs=encoded, decoder_input_ids=start, use_cache=False)
        return output.logits[:, -1].float()

    def spoken(self, scores: Any, mode: Mode) -> list[str]:
        """The language token of each row: asked for, or the likeliest. Nothing for a model of one language."""
        if not self.tongues:
            return []
        if mode.language != "auto":
            return [f"<|{mode.language}|>"] * len(scores)
        names = list(self.tongues)
        likeliest = scores[:, [self.tongues[name] for name in names]].argmax(-1)
        return [names[place] for place in likeliest.tolist()]

    def write(
        self, encoded: Any, frames: Any, tongues: Sequence[str], silent: Sequence[float | None], mode: Mode
    ) -> list[Heard]:
        chances, asked = Chances(), {}
        if tongues:
            asked = {"language": list(tongues), "task": "translate" if mode.translate else "transcribe"}
        output = self.model.generate(
            encoder_outputs=encoded,
            attention_mask=self.mask(frames) if mode.words else None,
            logits_processor=[chances],
            num_beams=1,
            do_sample=False,
            return_timestamps=False,
            return_token_timestamps=mode.words or None,
            return_dict_in_generate=True,
            force_unique_generate_call=True,
            **asked,
        )
        steps = torch.stack(chances.steps, 1).tolist()
        sequences = output["sequences"][:, -len(chances.steps) :].tolist()
        times = output["token_timestamps"][:, -len(chances.steps) :].tolist() if mode.words else None
        return [
            self.read(
                tokens,
                steps[row],
                times and times[row],
                tongues[row][2:-2] if tongues else "en",
                silent[row],
                mode,
            )
            for row, tokens in enumerate(sequences)
        ]

    def mask(self, frames: Any) -> Any:
        """Which frames are sound, for the times of words."""
        return torch.arange(int(frames.max()), device=self.device)[None] < frames[:, None]

    def read(
        self,
        row: Sequence[int],
        steps: Sequence[float],
        times: Sequence[float] | None,
        language: str,
        silent: float | None,
        mode: Mode,
    ) -> Heard:
        end = self.tokenizer.eos_token_id
        count = row.index(end) if end in row else len(row)
        tokens, scored = list(row[:count]), steps[: count + 1]
        likely = sum(scored) / len(scored)
        written = "en" if mode.translate else language
        if silent is not None and silent > SURELY_SILENT and likely < UNLIKELY:
            return Heard("", language=written, avg_logprob=likely, no_speech_prob=silent)
        words = self.words(tokens, times, written) if times is not None else None
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
        return Heard(text, tuple(tokens), words, written, None, None, likely, silent)

    def words(self, tokens: list[int], times: Sequence[float], language: str) -> tuple[Word, ...]:
        """A token lasts until the next one begins; the end token's time ends the last."""
        ends = [*times, times[-1]]
        name = LANGUAGES.get(language, "english")
        texts, _, places = _combine_tokens_into_words(self.tokenizer, tokens, name)
        return tuple(
            Word(text.strip(), times[at[0]], ends[at[-1] + 1])
            for text, at in zip(texts, places, strict=True)
            if text.strip()
        )


def load_model(folder: str, dtype: Any) -> Any:
    """Raises ValueError when weights are missing; the library would make random ones."""
    model, found = WhisperForConditionalGeneration.from_pretrained(
        folder, local_files_only=True, dtype=dtype, output_loading_info=True, use_safetensors=True
    )
    missing = sorted({*found["missing_keys"], *(str(each) for each in found["mismatched_keys"])})
    if missing:
        raise ValueError(f"{folder} lacks weights of the configured model: {', '.join(missing[:3])}")
    return model
