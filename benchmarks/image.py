"""The bar of pictures: compatible requests at once against one after another, through the whole stack."""

import dataclasses
import os
import statistics
from collections.abc import Iterator

from benchmarks.bars import Result
from benchmarks.plan import Scale
from benchmarks.stack import load, model_folder, running, say

BARS = ("image_batch_gain",)
MODEL = "bench-image"
AT_ONCE = 8


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    folder, threads = str(model_folder("demo-image")), len(os.sched_getaffinity(0))
    model = {
        "engine": "image",
        "source": folder,
        "type": "image",
        "slots": AT_ONCE,
        "options": {"threads": threads},
    }
    with running({MODEL: model}) as stack:
        target = dataclasses.asdict(stack.through("/v1/images/generations"))
        plan = {"kind": "shared", "target": target}
        # A seed of its own for each picture, so none comes from the cache.
        seeds = iter(range(1, 10_000))

        def paint(clients: int) -> float:
            body = {"model": MODEL, "prompt": "a red house", "size": "64x64", "steps": 20}
            bodies = [{**body, "seed": next(seeds)} for _ in range(AT_ONCE)]
            return float(load({**plan, "clients": clients, "bodies": bodies})["seconds"])

        paint(AT_ONCE)
        rounds = []
        for number in range(scale.rounds):
            first, second = (1, AT_ONCE) if number % 2 else (AT_ONCE, 1)
            seconds = {clients: paint(clients) for clients in (first, second)}
            rounds.append(seconds[1] / seconds[AT_ONCE])
            say(
                f"  round {number + 1}: {rounds[-1]:.2f} ({seconds[1]:.2f} s one by one, "
                f"{seconds[AT_ONCE]:.2f} s at once)"
            )
    yield Result("image_batch_gain", statistics.median(rounds), {"pictures": AT_ONCE, "rounds": rounds})
