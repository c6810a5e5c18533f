"""Bars of the scheduler itself: the no-op engine behind the whole stack, and what the idle stack weighs."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.bars import Result
from benchmarks.load import percentiles
from benchmarks.plan import Scale
from benchmarks.processes import Meter, pss_mb, rss_mb
from benchmarks.stack import Broken, Stack, load, running, say

BARS = ("idle_memory_mb", "noop_sync_rate", "noop_enqueue_to_start_p95_ms")
SLOTS = 32
CLIENTS = 32
IDLE = ("api", "scheduler", "watchers", "node")
SETTLE_SECONDS = 5.0
BODY = {"model": "noop", "messages": [{"role": "user", "content": "request {n}"}]}
MODELS = {"noop": {"engine": "noop", "source": "noop", "type": "chat", "slots": SLOTS}}


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    with running(MODELS) as stack:
        if "idle_memory_mb" in wanted:
            yield _idle_memory(stack)
        if wanted - {"idle_memory_mb"}:
            rate = _sync_rate(stack, scale)
            if "noop_sync_rate" in wanted:
                yield rate
            if "noop_enqueue_to_start_p95_ms" in wanted:
                yield _enqueue_to_start(stack, scale, rate.value / 2)


def _idle_memory(stack: Stack) -> Result:
    time.sleep(SETTLE_SECONDS)
    roles = stack.roles()
    rss = {role: round(rss_mb(pids), 1) for role, pids in roles.items()}
    pss = {role: round(pss_mb(pids), 1) for role, pids in roles.items()}
    details = {"rss_mb": rss, "pss_mb": pss, "pss_sum_mb": round(sum(pss[role] for role in IDLE), 1)}
    return Result("idle_memory_mb", sum(rss[role] for role in IDLE), details)


def _sync_rate(stack: Stack, scale: Scale) -> Result:
    """Closed loop. A round lasts until the ledger holds every job that was answered in it."""
    plan = {"kind": "closed", "target": target_of(stack), "body": BODY, "clients": CLIENTS}
    load({**plan, "seconds": scale.warm_seconds})
    rounds = []
    for number in range(scale.rounds):
        _await_ledger(stack, None)
        before, meter = _recorded(stack), Meter(stack.roles)
        figures = load({**plan, "seconds": scale.noop_seconds})
        lag = _await_ledger(stack, before + figures["count"])
        rate = figures["count"] / (figures["seconds"] + lag)
        cost = meter.per(figures["count"], figures["client_cpu_s"])
        say(
            f"  round {number + 1}: {rate:.0f} requests/s, p50 {figures['ms']['p50']} ms, cpu/request {cost} ms"
        )
        rounds.append({**figures, "rate": rate, "ledger_lag_s": lag, "cpu_ms_per_request": cost})
    value = statistics.median(each["rate"] for each in rounds)
    return Result("noop_sync_rate", value, {"clients": CLIENTS, "slots": SLOTS, "rounds": rounds})


def _enqueue_to_start(stack: Stack, scale: Scale, rate: float) -> Result:
    """Open loop. Both stamps are Redis' own time, read from the ledger."""
    plan = {"kind": "arrivals", "target": target_of(stack), "body": BODY, "rate": rate}
    rounds = []
    for number in range(scale.rounds):
        since, before = time.time(), _recorded(stack)
        figures = load({**plan, "seconds": scale.noop_seconds, "seed": number})
        _await_ledger(stack, before + figures["count"])
        waits = percentiles(_waits_ms(stack, since))
        say(f"  round {number + 1}: queued to started {waits} ms at {rate:.0f}/s")
        rounds.append({**figures, "queued_to_started_ms": waits})
    value = statistics.median(each["queued_to_started_ms"]["p95"] for each in rounds)
    return Result("noop_enqueue_to_start_p95_ms", value, {"rate": rate, "rounds": rounds})


def target_of(stack: Stack) -> dict[str, Any]:
    target = stack.through("/v1/chat/completions")
    return {"address": target.address, "path": target.path, "headers": target.headers}


def _recorded(stack: Stack) -> int:
    return int(stack.query("SELECT count(*) FROM jobs WHERE state = 'succeeded'")[0][0])


def _waits_ms(stack: Stack, since: float) -> list[float]:
    rows = stack.query("SELECT started_at - queued_at FROM jobs WHERE queued_at >= ?", since)
    return [wait * 1000 for (wait,) in rows if wait is not None]


def _await_ledger(stack: Stack, count: int | None) -> float:
    """Wait until the ledger holds `count` jobs (None: until it grows no more); the seconds that took."""
    began, seen = time.monotonic(), -1
    while (now := _recorded(stack)) != (seen if count is None else count):
        if time.monotonic() - began > 60:
            raise Broken(f"the ledger holds {now} jobs instead of {count}")
        seen = now
        time.sleep(0.3 if count is None else 0.02)
    return time.monotonic() - began
