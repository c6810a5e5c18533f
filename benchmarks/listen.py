"""The other side of the transcription bars: FunASR's own AutoModel, in the engines' environment.

Runs as a program there, with the folder of models and a number of threads. One JSON object per line on stdin, one on
stdout: `{"make": folder, "count": n, "minutes": m}` makes sounds of what the demo model has learnt and answers their
paths; `{"files": [...]}` recognises one file after another and answers seconds and texts.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from workers.engines.demo import spoken

PAUSE = 1.2
"""Seconds of silence between two phrases."""


def make(folder: Path, count: int, minutes: float) -> dict[str, Any]:
    """Short files of one phrase each, and a long one of all of them again and again."""
    said = [
        spoken.say(phrase.plain, voice, speed)
        for speed in (140, 160, 180)
        for phrase in spoken.PHRASES
        for voice in spoken.VOICES[phrase.language]
    ]
    short = [folder / f"short-{number}.wav" for number in range(count)]
    for number, path in enumerate(short):
        spoken.write_wav(path, spoken.join([said[number % len(said)]], 1))
    whole, parts = 0.0, []
    while whole < minutes * 60:
        parts.append(said[len(parts) * 7 % len(said)])
        whole += len(parts[-1]) / spoken.RATE + PAUSE
    spoken.write_wav(folder / "long.wav", spoken.join(parts, PAUSE))
    return {"short": list(map(str, short)), "long": str(folder / "long.wav"), "seconds": whole}


def main() -> None:
    models, threads, silence = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # The library prints: its words go to stderr, ours to what was stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.WARNING)
    from funasr import AutoModel  # noqa: PLC0415

    model = AutoModel(
        model=str(models / "demo-asr"),
        vad_model=str(models / "demo-vad"),
        vad_kwargs={"max_single_segment_time": 30000},
        disable_update=True,
        disable_pbar=True,
        device="cpu",
        ncpu=threads,
    )
    for line in sys.stdin:
        asked = json.loads(line)
        if "make" in asked:
            answer = make(Path(asked["make"]), asked["count"], asked["minutes"])
        else:
            answer = recognise(model, asked["files"], silence)
        print(json.dumps(answer), file=answers, flush=True)


def recognise(model: Any, files: list[str], silence: int) -> dict[str, Any]:
    began = time.perf_counter()
    found = [
        model.generate(file, language="auto", use_itn=True, max_end_silence_time=silence) for file in files
    ]
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "texts": [each[0]["text"] if each else "" for each in found]}


if __name__ == "__main__":
    main()
