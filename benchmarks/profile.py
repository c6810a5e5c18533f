"""`python -m benchmarks.profile WORKLOAD`: where the processor time of each process goes, by py-spy.

Workloads: `noop` (synchronous calls as fast as they are answered) and `streams` (32 streams of the no-op engine at a
fixed pace, which is what a small model under vLLM does to everything but the engine). It gives no verdicts.
"""

import argparse
import collections
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.noop import BODY, CLIENTS, MODELS, target_of
from benchmarks.processes import Meter
from benchmarks.stack import Stack, load, running, say

ROLES = ("api", "replica", "scheduler", "engine")
PY_SPY = str(Path(sys.executable).with_name("py-spy"))
FRAMES = ("runpy", "threading.py", "__main__.py", "bootsteps", "asyncio/runners", "call_with_retry")
_COMMAND = re.compile(r"cmdstat_(\S+):calls=(\d+),usec=(\d+)")
_LINE = re.compile(r":\d+\)$")
_THREAD = re.compile(r'^Thread (\d+) .*: "(.*)"$', re.MULTILINE)
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
        commands = _commands(stack)
        meter = Meter(stack.roles)
        threads = {role: Threads(_program(stack, role)) for role in ROLES}
        spies = {} if arguments.bare else _spies(stack, arguments.seconds)
        figures = load(plan)
        count = figures["count"] if arguments.workload == "noop" else figures["events"]
        cost = meter.per(count, figures["client_cpu_s"])
        rate = count / figures["seconds"]
        say(f"{count} requests or events, {rate:.0f}/s, cpu ms each: {cost}")
        for role, one in threads.items():
            say(f"  {role} by thread: {one.per(count)}")
        _show_commands(commands, _commands(stack), count)
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
    for role in ROLES:
        file = stack.home / f"{role}.collapsed"
        argv = [
            PY_SPY,
            "record",
            "--pid",
            str(_program(stack, role)),
            "--format",
            "raw",
            "--output",
            str(file),
        ]
        # Only what holds the interpreter's lock: that is work, and not a wait for Redis.
        argv += ["--rate", "200", "--duration", str(seconds), "--nonblocking", "--gil"]
        spies[role] = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), file
    return spies


def _program(stack: Stack, role: str) -> int:
    """The process of a role that does its work; an engine's is the last of its chain."""
    return max(stack.roles()[role])


class Threads:
    """Processor time of each thread of one process since this was made, by the threads' Python names."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = self._read()

    def _read(self) -> dict[str, int]:
        ticks = {}
        for folder in Path(f"/proc/{self._pid}/task").iterdir():
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            ticks[folder.name] = int(fields[11]) + int(fields[12])
        return ticks

    def per(self, count: int) -> dict[str, float]:
        """Milliseconds per request by group of threads, the dearest first."""
        dump = subprocess.run(
            [PY_SPY, "dump", "--nonblocking", "--pid", str(self._pid)], capture_output=True, check=False
        )
        names = dict(_THREAD.findall(dump.stdout.decode(errors="replace")))
        shares: collections.Counter[str] = collections.Counter()
        for thread, ticks in self._read().items():
            name = re.sub(r"[-_]?\d+(_\d+)?$", "", names.get(thread, "not Python"))
            shares[name] += ticks - self._before.get(thread, 0)
        return {name: round(ticks * 10 / max(count, 1), 4) for name, ticks in shares.most_common()}


def _commands(stack: Stack) -> dict[str, tuple[int, int]]:
    """Calls and microseconds of each Redis command so far; those inside scripts are counted too."""
    found = _COMMAND.findall(stack.redis("INFO commandstats").decode())
    return {name: (int(calls), int(micros)) for name, calls, micros in found}


def _show_commands(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], count: int) -> None:
    used = {
        name: (c - before.get(name, (0, 0))[0], m - before.get(name, (0, 0))[1])
        for name, (c, m) in after.items()
    }
    print("\nredis: calls per request, microseconds per request, command")
    for name, (calls, micros) in sorted(used.items(), key=lambda item: -item[1][1])[:16]:
        print(f"  {calls / count:8.3f} {micros / count:8.1f}  {name}")


def _show(role: str, file: Path, top: int) -> None:
    """The functions with most samples: with all that they call, and their own."""
    own: collections.Counter[str] = collections.Counter()
    whole: collections.Counter[str] = collections.Counter()
    total = 0
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        names = [_LINE.sub(")", name) for name in stack.split(";")]
        total += int(count)
        own[names[-1]] += int(count)
        for name in set(names):
            whole[name] += int(count)
    print(f"\n{role}: {total} samples; per cent with callees, per cent own, function")
    shown = [name for name, _ in whole.most_common() if not any(frame in name for frame in FRAMES)]
    for name in shown[:top]:
        print(f"  {100 * whole[name] / max(total, 1):5.1f} {100 * own[name] / max(total, 1):5.1f}  {name}")


if __name__ == "__main__":
    sys.exit(main())
