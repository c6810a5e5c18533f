"""The bars of transcription: through the whole stack, against FunASR's AutoModel with the same models."""

import contextlib
import dataclasses
import json
import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.bars import Result
from benchmarks.plan import Scale
from benchmarks.processes import Meter
from benchmarks.stack import (
    ENGINES_PYTHON,
    MODELS,
    ROOT,
    Broken,
    environment,
    load,
    model_folder,
    running,
    say,
)

BARS = ("asr_many_ratio", "asr_long_ratio", "asr_texts_differ")
MODEL = "bench-asr"
CLIENTS = 32
SILENCE_MS = 800
_NOISE = re.compile(r"<\|[^|]*\|>|\s")
Ask = Callable[[dict[str, Any]], dict[str, Any]]


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    folders = {name: str(model_folder(name)) for name in ("demo-asr", "demo-vad")}
    threads = len(os.sched_getaffinity(0))
    options = {"vad_model": folders["demo-vad"], "vad_silence_ms": SILENCE_MS, "threads": threads}
    model = {
        "engine": "asr",
        "source": folders["demo-asr"],
        "type": "asr",
        "slots": CLIENTS,
        "options": options,
    }
    with (
        tempfile.TemporaryDirectory(prefix="iq-sounds-") as folder,
        listener(threads) as ask,
        running({MODEL: model}) as stack,
    ):
        sounds = ask({"make": folder, "count": scale.sounds, "minutes": scale.minutes})
        target = dataclasses.asdict(stack.through("/v1/audio/transcriptions"))
        target["headers"]["cache-control"] = "no-store"
        plan = {"kind": "shared", "target": target, "clients": CLIENTS, "keep": True}

        def through(files: list[str]) -> dict[str, Any]:
            return load(
                {**plan, "bodies": [{"form": {"model": MODEL, "file": f"@{file}"}} for file in files]}
            )

        through(sounds["short"][:8])
        ask({"files": sounds["short"][:2]})
        many, long, differ = [], [], 0
        costs: list[dict[str, Any]] = []
        for number in range(scale.rounds):
            for kind, files, ratios in (("many", sounds["short"], many), ("long", [sounds["long"]], long)):
                theirs = ask({"files": files}) if number % 2 else None
                meter = Meter(stack.roles)
                ours = through(files)
                cost = meter.per(len(files), ours["client_cpu_s"])
                theirs = theirs or ask({"files": files})
                differ += differing(ours["answers"], theirs["texts"])
                ratios.append(theirs["seconds"] / ours["seconds"])
                costs.append({"kind": kind, "cpu_ms_per_file": cost})
                say(
                    f"  round {number + 1}, {kind}: {theirs['seconds']:.2f} s alone, {ours['seconds']:.2f} s through"
                )
    details = {
        "files": len(sounds["short"]),
        "long_s": sounds["seconds"],
        "many": many,
        "long": long,
        "costs": costs,
    }
    yield Result("asr_many_ratio", statistics.median(many), details)
    yield Result("asr_long_ratio", 1 / statistics.median(long), details)
    yield Result("asr_texts_differ", differ, details)


def differing(answers: list[str], texts: list[str]) -> int:
    """How many texts are not the same, spaces and tags left aside."""
    ours = [_NOISE.sub("", json.loads(answer)["text"]) for answer in answers]
    return sum(one != _NOISE.sub("", other) for one, other in zip(ours, texts, strict=True))


@contextlib.contextmanager
def listener(threads: int) -> Iterator[Ask]:
    """A process that holds AutoModel."""
    argv = [str(ENGINES_PYTHON), "-m", "benchmarks.listen", str(MODELS), str(threads), str(SILENCE_MS)]
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=environment(OMP_WAIT_POLICY="PASSIVE"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def ask(question: dict[str, Any]) -> dict[str, Any]:
            questions.write(json.dumps(question) + "\n")
            questions.flush()
            answer = answers.readline()
            if not answer:
                raise Broken("FunASR's AutoModel failed; run benchmarks.listen by hand to see why")
            return dict(json.loads(answer))

        try:
            yield ask
        finally:
            process.kill()
