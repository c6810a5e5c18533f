"""The answers to a transcription: OpenAI's shapes, subtitles, plain text, and the events of a stream."""

from __future__ import annotations

import math
import zlib
from typing import Any

from workers.engines import encoding
from workers.engines.asgi import Reply
from workers.engines.recognition.request import LANGUAGES, Ask
from workers.engines.recognition.subtitles import srt, vtt
from workers.engines.recognition.transcript import Segment, Transcript

MEDIA = {
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


def content(transcript: Transcript, ask: Ask, model: str) -> Any:
    """The whole answer: an object, or a text for the formats that are one."""
    if ask.format == "text":
        return transcript.text + "\n"
    if ask.format == "srt":
        return srt(transcript.segments)
    if ask.format == "vtt":
        return vtt(transcript.segments)
    if ask.format == "diarized_json":
        return diarized(transcript, ask, model)
    if ask.format == "verbose_json":
        return verbose(transcript, ask, model)
    return {"text": transcript.text, "model": model, "usage": usage(transcript)}


def of_several(transcript: Transcript, ask: Ask, model: str) -> dict[str, Any]:
    """The answer for one of several files: all that is known, and in `content` the text format that was asked for."""
    if ask.format == "diarized_json":
        return diarized(transcript, ask, model)
    extra = {"content": content(transcript, ask, model)} if ask.format in MEDIA else {}
    return verbose(transcript, ask, model) | extra


def reply(answer: Any, ask: Ask) -> Reply:
    if isinstance(answer, str):
        return Reply(answer.encode(), media=MEDIA[ask.format])
    return Reply.json(answer)


def verbose(transcript: Transcript, ask: Ask, model: str) -> dict[str, Any]:
    language = transcript.language
    body: dict[str, Any] = {
        "task": task(ask),
        "language": LANGUAGES.get(language or "", language or "unknown"),
        "duration": seconds(transcript.seconds),
        "text": transcript.text,
    }
    if "segment" in ask.granularities:
        body["segments"] = [entry(each, place, ask) for place, each in enumerate(transcript.segments)]
    if "word" in ask.granularities:
        words = [word for segment in transcript.segments for word in segment.heard.words or ()]
        body["words"] = [
            {"word": word.text, "start": seconds(word.start), "end": seconds(word.end)} for word in words
        ]
    return body | {"model": model, "usage": usage(transcript)}


def diarized(transcript: Transcript, ask: Ask, model: str) -> dict[str, Any]:
    """OpenAI's shape for who says what."""
    segments = [
        {
            "type": "transcript.text.segment",
            "id": f"seg_{place}",
            "start": seconds(segment.start),
            "end": seconds(segment.end),
            "text": segment.text,
            "speaker": segment.speaker,
        }
        for place, segment in enumerate(transcript.segments)
    ]
    head = {"task": task(ask), "duration": seconds(transcript.seconds), "text": transcript.text}
    return {**head, "segments": segments, "model": model, "usage": usage(transcript)}


def task(ask: Ask) -> str:
    return "translate" if ask.mode.translate else "transcribe"


def entry(segment: Segment, place: int, ask: Ask) -> dict[str, Any]:
    """One segment. A number that the model does not give is null."""
    heard = segment.heard
    found: dict[str, Any] = {
        "id": place,
        "seek": round(segment.start * 100),
        "start": seconds(segment.start),
        "end": seconds(segment.end),
        "text": segment.text,
        "tokens": list(heard.tokens),
        "temperature": 0.0,
        "avg_logprob": heard.avg_logprob,
        "compression_ratio": compression_ratio(segment.text),
        "no_speech_prob": heard.no_speech_prob,
    }
    if ask.tags:
        found |= {"language": heard.language, "emotion": heard.emotion, "event": heard.event}
    if ask.speakers:
        found["speaker"] = segment.speaker
    return found


def compression_ratio(text: str) -> float:
    """As Whisper computes it: how much zlib shrinks the text, which shows repetition."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 1.0


def usage(transcript: Transcript) -> dict[str, Any]:
    """OpenAI bills begun seconds."""
    return {"type": "duration", "seconds": math.ceil(transcript.seconds)}


def seconds(value: float) -> float:
    return round(value, 3)


def delta(text: str) -> bytes:
    return event({"type": "transcript.text.delta", "delta": text})


def done(transcript: Transcript, ask: Ask, model: str) -> bytes:
    """The last event; `response` is the answer that a request without `stream` gets."""
    answer = content(transcript, ask, model)
    last = {
        "type": "transcript.text.done",
        "text": transcript.text,
        "response": answer,
        "media_type": MEDIA.get(ask.format, "application/json"),
    }
    return event(last) + b"data: [DONE]\n\n"


def event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\n".encode() + encoding.event(value)
