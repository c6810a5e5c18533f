"""The bar of speech: when the first sound of a ten-sentence request comes, as a share of the whole."""

import dataclasses
import statistics
from collections.abc import Iterator

from benchmarks.bars import Result
from benchmarks.plan import Scale
from benchmarks.stack import load, running, say

BARS = ("speech_first_share",)
MODEL = "bench-speech"
SENTENCES = " ".join(
    f"This is sentence number {number} of a text that somebody wants to hear while it is being made."
    for number in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
)
FORMATS = ("mp3", "wav")


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    model = {"engine": "speech", "source": "espeak", "type": "tts", "slots": 4}
    with running({MODEL: model}) as stack:
        target = dataclasses.asdict(stack.through("/v1/audio/speech"))
        plan = {"kind": "shared", "target": target, "clients": 1}
        shares: dict[str, list[float]] = {form: [] for form in FORMATS}
        for number in range(scale.rounds + 1):
            for form in FORMATS:
                body = {"model": MODEL, "input": SENTENCES, "response_format": form}
                figures = load({**plan, "bodies": [body]})
                if number:  # the first one warms up
                    shares[form].append(figures["first_ms"]["p50"] / figures["ms"]["p50"])
                    say(
                        f"  round {number}, {form}: first after {figures['first_ms']['p50']:.0f} ms, "
                        f"all after {figures['ms']['p50']:.0f} ms"
                    )
    # mp3 is what a call without `response_format` gets.
    yield Result("speech_first_share", statistics.median(shares["mp3"]), {"shares": shares})
