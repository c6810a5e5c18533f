"""`python -m benchmarks.profile WORKLOAD`: where the processor time of each process goes, by py-spy.

Workloads: `noop` (synchronous calls as fast as they are answered) and `streams` (32 streams of the no-op engine at a
fixed pace, which is what a small model under vLLM does to everything but the engine). It gives no verdicts.
"""

import argparse
import collections
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.noop import BODY, CLIENTS, MODELS, target_of
from benchmarks.processes import Meter
from benchmarks.stack import Stack, load, running, say

ROLES = ("api", "replica", "scheduler", "engine")
STREAMS = 32
STREAM_TOKENS = 1000
PACED = {"noop": {**MODELS["noop"], "options": {"tokens": STREAM_TOKENS, "token_interval_s": 0.01}}}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("workload", choices=("noop", "streams"))
    parser.add_argument("--seconds", type=int, default=10, help="of profiling")
    parser.add_argument("--top", type=int, default=25, help="functions shown per process")
    parser.add_argument("--bare", action="store_true", help="only processor time per request, without py-spy")
    arguments = parser.parse_args()
    with running(MODELS if arguments.workload == "noop" else PACED) as stack:
        plan = _plan(stack, arguments.workload, arguments.seconds + 4)
        load({**plan, "seconds": 2})
        meter = Meter(stack.roles)
        spies = {} if arguments.bare else _spies(stack, arguments.seconds)
        figures = load(plan)
        count = figures["count"] if arguments.workload == "noop" else figures["events"]
        cost = meter.per(count, figures["client_cpu_s"])
        rate = count / figures["seconds"]
        say(f"{count} requests or events, {rate:.0f}/s, cpu ms each: {cost}")
        for role, (spy, file) in spies.items():
            spy.wait(60)
            _show(role, file, arguments.top)
    return 0


def _plan(stack: Stack, workload: str, seconds: int) -> dict[str, Any]:
    if workload == "noop":
        return {
            "kind": "closed",
            "target": target_of(stack),
            "body": BODY,
            "clients": CLIENTS,
            "seconds": seconds,
        }
    body = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
    return {"kind": "streams", "target": target_of(stack), "body": body, "streams": STREAMS}


def _spies(stack: Stack, seconds: int) -> dict[str, tuple[subprocess.Popen[bytes], Path]]:
    spies = {}
    program = str(Path(sys.executable).with_name("py-spy"))
    for role in ROLES:
        file = stack.home / f"{role}.collapsed"
        pid = max(stack.roles()[role])
        argv = [
            program,
            "record",
            "--pid",
            str(pid),
            "--format",
            "raw",
            "--rate",
            "100",
            "--output",
            str(file),
        ]
        argv += ["--duration", str(seconds), "--nonblocking"]
        spies[role] = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), file
    return spies


def _show(role: str, file: Path, top: int) -> None:
    """The functions with most samples: their own, and with all that they call."""
    own: collections.Counter[str] = collections.Counter()
    whole: collections.Counter[str] = collections.Counter()
    total = 0
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        names = stack.split(";")
        total += int(count)
        own[names[-1]] += int(count)
        for name in set(names):
            whole[name] += int(count)
    print(f"\n{role}: {total} samples; per cent with callees, per cent own, function")
    for name, count in whole.most_common(top):
        print(f"  {100 * count / max(total, 1):5.1f} {100 * own[name] / max(total, 1):5.1f}  {name}")


if __name__ == "__main__":
    sys.exit(main())
