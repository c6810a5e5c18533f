"""`python -m benchmarks`: one line of JSON per bar on stdout, progress on stderr, all details in a file.

Exit codes: 0 every bar was met, 1 one was missed, 2 something could not be measured.
"""

import argparse
import datetime as dt
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    asr,
    cancel,
    embed,
    image,
    noop,
    queue_celery,
    queue_chaos,
    queue_flood,
    queue_scripts,
    speech,
    streams,
)
from benchmarks.bars import BARS, Result
from benchmarks.plan import FULL, QUICK, Scale
from benchmarks.stack import Broken, say

RESULTS = Path(__file__).parent / "results"
QUIET_LOAD = 1.0
GROUPS: dict[str, tuple[Sequence[str], Callable[[set[str], Scale], Iterator[Result]]]] = {
    "noop": (noop.BARS, noop.measure),
    "queue_scripts": (queue_scripts.BARS, queue_scripts.measure),
    "queue_flood": (queue_flood.BARS, queue_flood.measure),
    "queue_chaos": (queue_chaos.BARS, queue_chaos.measure),
    "queue_celery": (queue_celery.BARS, queue_celery.measure),
    "embed": (embed.BARS, embed.measure),
    "asr": (asr.BARS, asr.measure),
    "image": (image.BARS, image.measure),
    "speech": (speech.BARS, speech.measure),
    "text": (cancel.BARS, cancel.measure),
    "small": (streams.SMALL_BARS, streams.measure_small),
    "big": (streams.BIG_BARS, streams.measure_big),
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    wanted = set(arguments.only or BARS)
    for name, (bars, _) in GROUPS.items():
        if name in wanted or _family(name) in wanted:
            wanted |= set(bars)
    # A plain SIGTERM would end this process before it has stopped its stack.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    facts = machine()
    if facts["noisy"]:
        say(
            f"warning: load average {facts['load_before']}: other programs run here; the figures will be poor"
        )
    results: list[Result] = []
    failures: dict[str, str] = {}
    try:
        for name, (bars, measure) in GROUPS.items():
            if not wanted & set(bars):
                continue
            say(f"{name}: {', '.join(bar for bar in bars if bar in wanted)}")
            try:
                for result in measure(wanted & set(bars), QUICK if arguments.quick else FULL):
                    print(result.line(), flush=True)
                    results.append(result)
            except Broken as error:
                failures[name] = str(error)
                say(f"error: {name} could not be measured: {error}")
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    _write(arguments, facts, results, failures)
    if failures:
        return 2
    return 0 if all(result.bar.met(result.value) for result in results) else 1


def _family(group: str) -> str:
    """`queue` stands for all groups of that name."""
    return group.partition("_")[0]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure every bar.")
    parser.add_argument(
        "--only",
        action="append",
        choices=[*BARS, *GROUPS, *{_family(name) for name in GROUPS}],
        metavar="NAME",
        help="a bar or a group; may repeat",
    )
    parser.add_argument("--quick", action="store_true", help="few samples: shows that all works, no verdict")
    parser.add_argument(
        "--out", type=Path, help="file for the details (default: benchmarks/results/DATE.json)"
    )
    return parser.parse_args(argv)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    load = round(os.getloadavg()[0], 2)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        "load_before": load,
        "noisy": load > QUIET_LOAD,
    }


def _write(
    arguments: argparse.Namespace, facts: dict[str, Any], results: list[Result], failures: dict[str, str]
) -> None:
    stamp = facts["date"].replace(":", "").partition("+")[0]
    file: Path = arguments.out or RESULTS / f"{stamp}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": {**facts, "load_after": round(os.getloadavg()[0], 2)},
        "quick": arguments.quick,
        "results": [{**result.as_dict(), "details": result.details} for result in results],
        "failures": failures,
    }
    file.write_text(json.dumps(content, indent=2) + "\n")
    say(f"details: {file}")


if __name__ == "__main__":
    sys.exit(main())
