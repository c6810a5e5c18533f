"""What a person reads after a run: the table of numbers, the broken promises, and the timelines of their jobs."""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import Evidence, Window
from tests.chaos.invariants import Violation, overlaps
from tests.chaos.session import Finding
from tests.chaos.site import MODELS

TIMELINES = 6


def summary(finding: Finding) -> str:
    """The numbers of one run."""
    evidence = finding.evidence
    kinds = Counter(f"{op.kind} {op.outcome}" for op in evidence.operations.values())
    states = Counter(row["state"] for row in evidence.rows.values() if row["durable"])
    runs = Counter(run.job for run in evidence.runs.values())
    again = sum(count - 1 for count in runs.values())
    beside = len(list(overlaps(evidence)))
    share = f"{100 * again / len(runs):.1f} %" if runs else "none"
    numbers = {
        "operations": _counted(kinds),
        "durable jobs": f"{sum(states.values())}: {_counted(states)}",
        "runs": f"{len(evidence.runs)} of {len(runs)} jobs; {again} again ({share}), {beside} beside the earlier one",
        "Redis": f"looked at {finding.looks} times; at most {finding.most_waiting} jobs waited",
        "held": _held(finding),
        "time": f"up in {finding.booted:.1f} s, quiet {finding.quiet:.1f} s after the last heal",
    }
    lines = [f"  {name:12} {text}" for name, text in numbers.items()]
    lines.append(f"  {'fault':22} times   recovery in s: median  longest")
    return "\n".join([*lines, *(f"    {row}" for row in _recoveries(evidence))])


def _held(finding: Finding) -> str:
    """Open files at the end: connections to Redis and its sentinels, files of the database, all others."""
    held = sorted(finding.held.items())
    return ", ".join(f"{name} {each.redis}+{each.sentinels}+{each.sql}+{each.rest}" for name, each in held)


def _counted(numbers: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(numbers.items()))


def _recoveries(evidence: Evidence) -> Iterator[str]:
    by_kind: dict[str, list[float | None]] = defaultdict(list)
    for window in (each for each in evidence.windows if each.number):
        by_kind[window.kind.name].append(recovery(evidence, window))
    for name, found in sorted(by_kind.items()):
        known = [seconds for seconds in found if seconds is not None]
        seen = f"{statistics.median(known):22.1f}  {max(known):7.1f}" if known else f"{'not seen':>22}"
        yield f"{name:20} {len(found):5} {seen}"


def recovery(evidence: Evidence, window: Window) -> float | None:
    """Seconds from the heal until a call asked after it has been answered well, by each model; None when none was."""
    firsts = []
    for model in MODELS:
        good = [
            op.ended
            for op in evidence.of_kind("call", "stream")
            if op.facts["model"] == model and op.outcome == "ok" and op.began >= window.ended
        ]
        if not good:
            return None
        firsts.append(min(good) - window.ended)
    return max(firsts)


def failure(finding: Finding, seed: str) -> str:
    """The broken promises, each kind of them once in full, and what happened to their jobs."""
    lines = [f"RED seed {seed}: {len(finding.violations)} violations"]
    by_rule: dict[str, list[Violation]] = defaultdict(list)
    for violation in finding.violations:
        by_rule[violation.rule].append(violation)
    for name, found in by_rule.items():
        lines.append(f"  {name} ({len(found)})")
        lines += [f"    {violation.text}" for violation in found[:8]]
    told = list(dict.fromkeys(job for found in by_rule.values() for v in found[:3] for job in v.jobs))
    for job in told[:TIMELINES]:
        lines += [f"  timeline of {job}", *(f"    {line}" for line in timeline(finding.evidence, job))]
    return "\n".join(lines)


def timeline(evidence: Evidence, job: str) -> list[str]:
    """All that is known of one job, and the faults meanwhile, in order."""
    row = evidence.rows.get(job)
    events = [*_told(evidence, job), *_runs(evidence, job)]
    if row is not None:
        times = ("created_at", "queued_at", "started_at", "finished_at")
        events += [(row[name], f"row: {name}") for name in times if row[name]]
    known = [at for at, _ in events if at != float("inf")]
    for window in evidence.windows if known else []:
        if window.touches(min(known), max(known), after=10.0):
            events.append((window.began, f"** {window.name} {window.what}"))
            events.append((window.ended, f"** {window.name} healed"))
    lines = [f"{_clock(at)} {text}" for at, text in sorted(events)]
    if row is not None:
        shown = ("state", "generation", "attempt", "replica", "error_code", "error_message", "in_queue")
        lines.append("row " + ", ".join(f"{name} {row[name]}" for name in shown))
    return lines


def _told(evidence: Evidence, job: str) -> Iterator[tuple[float, str]]:
    markers = {run.marker for run in evidence.runs_of(job)}
    for op in evidence.operations.values():
        if op.job == job or op.marker in markers:
            shown = {k: v for k, v in op.facts.items() if k in ("model", "hooks", "tenant")}
            yield op.began, f"{op.id} {op.kind} {shown}"
            told = {k: v for k, v in op.told.items() if k not in ("at", "actor", "event", "op", "text")}
            yield op.ended, f"{op.id} {op.outcome} {told}"


def _runs(evidence: Evidence, job: str) -> Iterator[tuple[float, str]]:
    for run in evidence.runs_of(job):
        yield run.began, f"run {run.id} begins in pid {run.pid}"
        if run.ended is not None:
            yield run.ended, f"run {run.id} ends: {run.how}"


def _clock(at: float) -> str:
    if at == float("inf"):
        return "never       "
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03}"
