"""The speech recognition engine beside FunASR's own AutoModel, with the same models on the same machine.

    OMP_NUM_THREADS=1 .venv-engines/bin/python -m benchmarks.transcribing --models .cache/models

Many short files: all sent to the engine at once, against AutoModel.generate one after another. One long file: the same
file through both. Texts are compared without spaces and tags. Prints one JSON object.
"""

import argparse
import http.client
import json
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SILENCE_MS = 800


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("engine", timeout=600)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask(address, method, path, body=None):
    connection = Connection(address)
    connection.request(method, path, json.dumps(body) if body else None)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content)


def sounds(folder, count, minutes):
    """Short files of one phrase each, and a long one of all of them again and again."""
    from workers.engines.demo import spoken  # noqa: PLC0415 - needs the engines' environment

    said = [
        spoken.say(phrase.plain, voice, speed)
        for speed in (140, 160, 180)
        for phrase in spoken.PHRASES
        for voice in spoken.VOICES[phrase.language]
    ]
    for number in range(count):
        spoken.write_wav(folder / f"short-{number}.wav", spoken.join([said[number % len(said)]], 1))
    whole, parts = 0.0, []
    while whole < minutes * 60:
        parts.append(said[len(parts) * 7 % len(said)])
        whole += len(parts[-1]) / spoken.RATE + 1.2
    spoken.write_wav(folder / "long.wav", spoken.join(parts, 1.2))
    return [folder / f"short-{number}.wav" for number in range(count)], folder / "long.wav"


def bare(text):
    return re.sub(r"<\|[^|]*\|>|\s", "", text)


def auto_model(models, threads, short, long):
    """Seconds and texts of AutoModel."""
    logging.disable(logging.WARNING)
    from funasr import AutoModel  # noqa: PLC0415 - takes seconds, and must not run beside the engine

    model = AutoModel(
        model=str(models / "demo-asr"),
        vad_model=str(models / "demo-vad"),
        vad_kwargs={"max_single_segment_time": 30000},
        disable_update=True,
        disable_pbar=True,
        device="cpu",
        ncpu=threads,
    )
    settings = {"language": "auto", "use_itn": True, "max_end_silence_time": SILENCE_MS}

    def text(path):
        found = model.generate(str(path), **settings)
        return bare(found[0]["text"]) if found else ""

    text(short[0])
    began = time.perf_counter()
    texts = [text(path) for path in short]
    middle = time.perf_counter()
    texts.append(text(long))
    return middle - began, time.perf_counter() - middle, texts


def engine(models, threads, short, long, folder, at_once):
    """Seconds and texts of the engine."""
    address = str(folder / "s.sock")
    options = {"vad_model": str(models / "demo-vad"), "vad_silence_ms": SILENCE_MS, "threads": threads}
    argv = [
        sys.executable,
        "-m",
        "workers.engines.asr",
        "--model",
        str(models / "demo-asr"),
        "--uds",
        address,
    ]
    argv += ["--media", str(folder), "--options", json.dumps(options)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            while not ready(address):
                time.sleep(0.2)

            def text(path):
                status, answer = ask(address, "POST", "/v1/audio/transcriptions", {"file": f"file://{path}"})
                assert status == 200, answer
                return bare(answer["text"])

            text(short[0])
            began = time.perf_counter()
            with ThreadPoolExecutor(at_once) as pool:
                texts = list(pool.map(text, short))
            middle = time.perf_counter()
            texts.append(text(long))
            end = time.perf_counter()
            health = ask(address, "GET", "/health")[1]
        finally:
            process.kill()
    return middle - began, end - middle, texts, {key: health[key] for key in ("batches", "items")}


def ready(address):
    try:
        return ask(address, "GET", "/health")[0] == 200
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path(".cache/models"))
    parser.add_argument("--files", type=int, default=96)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--at-once", type=int, default=32)
    given = parser.parse_args()
    models = given.models.resolve()
    with tempfile.TemporaryDirectory(prefix="iq-") as name:
        short, long = sounds(Path(name), given.files, given.minutes)
        ours = engine(models, given.threads, short, long, Path(name), given.at_once)
        theirs = auto_model(models, given.threads, short, long)
    same = sum(one == other for one, other in zip(ours[2], theirs[2], strict=True))
    report = {
        "threads": given.threads,
        "short_files": given.files,
        "short_auto_model_s": round(theirs[0], 2),
        "short_engine_s": round(ours[0], 2),
        "short_speedup": round(theirs[0] / ours[0], 2),
        "long_minutes": given.minutes,
        "long_auto_model_s": round(theirs[1], 2),
        "long_engine_s": round(ours[1], 2),
        "long_ratio": round(ours[1] / theirs[1], 2),
        "texts_same": f"{same} of {len(ours[2])}",
        **ours[3],
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
