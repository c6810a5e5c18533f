"""The bar of embeddings: many callers with a few texts each, against `encode` with all of the texts at once."""

import contextlib
import dataclasses
import json
import os
import random
import statistics
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.bars import Result
from benchmarks.plan import Scale
from benchmarks.processes import Meter
from benchmarks.stack import ENGINES_PYTHON, ROOT, Broken, environment, load, model_folder, running, say

BARS = ("embed_ratio", "embed_gain")
MODEL = "bench-embed-small"
CLIENTS = 16
MANY = 64
"""Callers with one text each, and texts of the library's own batches."""
TEXTS_PER_REQUEST = 8
SYLLABLES = [first + second for first in "bcdfghklmnprstvwz" for second in "aeiou"]


def texts_of(count: int, shortest: int = 10, longest: int = 120) -> list[str]:
    """Texts of so many words of the model's vocabulary, the same in every run."""
    source = random.Random(7)
    words = [one + two + "ba" for one in SYLLABLES for two in SYLLABLES]
    return [" ".join(source.choices(words, k=source.randint(shortest, longest))) for _ in range(count)]


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    folder, threads = model_folder(MODEL), len(os.sched_getaffinity(0))
    options = {"threads": threads}
    model = {
        "engine": "embed",
        "source": str(folder),
        "type": "embedding",
        "slots": MANY,
        "options": options,
    }
    texts = texts_of(scale.texts)
    bodies = [
        {"model": MODEL, "input": texts[at : at + TEXTS_PER_REQUEST], "encoding_format": "base64"}
        for at in range(0, len(texts), TEXTS_PER_REQUEST)
    ]
    with encoder(folder, threads) as encode, running({MODEL: model}) as stack:
        target = dataclasses.asdict(stack.through("/v1/embeddings"))
        target["headers"]["cache-control"] = "no-store"
        plan = {"kind": "shared", "target": target, "clients": CLIENTS}
        load({**plan, "bodies": bodies[:8]})
        encode(texts[:64])
        rounds: list[dict[str, Any]] = []
        for number in range(scale.rounds):
            alone = encode(texts) if number % 2 else 0.0
            meter = Meter(stack.roles)
            figures = load({**plan, "bodies": bodies})
            cost = meter.per(len(texts), figures["client_cpu_s"])
            alone = alone or encode(texts)
            ratio = alone / figures["seconds"]
            speeds = f"{len(texts) / alone:.1f} alone, {len(texts) / figures['seconds']:.1f} through, texts/s"
            say(f"  round {number + 1}: {ratio:.3f} ({speeds})")
            rounds.append({"ratio": ratio, "alone_s": alone, "through": figures, "cpu_ms_per_text": cost})
        # Queries, which is where batches gain: a long text fills the cores by itself.
        queries = texts_of(scale.singles, 5, 20)
        gains = [gain(encode, plan, queries) for _ in range(scale.rounds)]
    details = {"texts": len(texts), "threads": threads, "clients": CLIENTS, "rounds": rounds, "gains": gains}
    yield Result("embed_ratio", statistics.median(each["ratio"] for each in rounds), details)
    yield Result("embed_gain", statistics.median(each["share"] for each in gains), details)


def gain(encode: Callable[..., float], plan: dict[str, Any], texts: list[str]) -> dict[str, float]:
    """How much of the library's gain from batches 64 callers with one text each have, in one round."""
    single = encode(texts, one_by_one=True)
    bodies = [{"model": MODEL, "input": text, "encoding_format": "base64"} for text in texts]
    ours = load({**plan, "clients": MANY, "bodies": bodies})["seconds"]
    batched = encode(texts)
    figures = {"single_s": single, "batched_s": batched, "through_s": ours, "share": batched / ours}
    say(f"  one by one {single:.2f} s, in batches {batched:.2f} s, {MANY} callers {ours:.2f} s")
    return figures


@contextlib.contextmanager
def encoder(folder: Path, threads: int) -> Iterator[Callable[..., float]]:
    """A process that holds the model; calling it with texts gives the seconds that `encode` took."""
    argv = [str(ENGINES_PYTHON), "-m", "benchmarks.encode", str(folder), str(threads)]
    # As our engine has it. With OpenMP's own default a machine with anything else to do would make `encode` crawl.
    env = environment(OMP_WAIT_POLICY="PASSIVE", HF_HUB_DISABLE_PROGRESS_BARS="1")
    with subprocess.Popen(
        argv, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answers = process.stdin, process.stdout

        def encode(texts: list[str], *, one_by_one: bool = False) -> float:
            ask.write(json.dumps({"texts": texts, "batch": 1 if one_by_one else MANY}) + "\n")
            ask.flush()
            answer = answers.readline()
            if not answer:
                raise Broken("sentence-transformers' encode failed; see above")
            return float(answer)

        try:
            yield encode
        finally:
            process.kill()
