"""Bars of order on a running stack: one tenant's ten thousand jobs, and what others, and it, get beside them.

The engine takes a fixed time. A slot's time is what one job takes in its slot with all that is around it, as seen:
slots x seconds / jobs that ended. With head starts (300 and 60 device seconds) larger than what a job costs, the high
job goes before every low one, so it waits for the first slot that becomes free: one slot time. The medium one may have
the high one before it: two. While two tenants of the same weight want all of it, each has half.
"""

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.bars import Result
from benchmarks.plan import Scale
from benchmarks.stack import Broken, Stack, running, say

BARS = ("queue_flood_high_wait", "queue_flood_medium_wait", "queue_flood_share", "queue_share_error")
FLOODED, SHARED = "flooded", "shared"
SLOTS, SERVICE = 2, 0.25
SHARED_SLOTS = 4
SHORT, LONG = "!delay=0.05", "!delay=0.1"
NOOP = {"engine": "noop", "source": "noop", "type": "chat"}
MODELS = {
    FLOODED: {**NOOP, "slots": SLOTS, "options": {"delay_s": SERVICE}},
    SHARED: {**NOOP, "slots": SHARED_SLOTS, "options": {"delay_s": 0.05}},
}
# By default one tenant may fill all of a model's queue; then others are refused, which is another matter.
SECTIONS = {"queue": {"max_queue_size": 50_000}}
AT_ONCE = 1000
WARM_UP = 5.0
PATIENCE = 120.0
ENDED = "SELECT count(*) FROM jobs WHERE model = ? AND state = 'succeeded' AND finished_at BETWEEN ? AND ?"
SPENT = "SELECT sum(device_seconds) FROM jobs WHERE model = ? AND tenant = ? AND finished_at BETWEEN ? AND ?"
WAITING = "SELECT count(*) FROM jobs WHERE model = ? AND tenant = ? AND rank < 3"
TIMES = "SELECT queued_at, started_at FROM jobs WHERE id = ? AND finished_at IS NOT NULL"


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    with running(MODELS, SECTIONS) as stack:
        if wanted & set(BARS[:3]):
            for result in _flood(stack, scale):
                if result.name in wanted:
                    yield result
        if "queue_share_error" in wanted:
            yield _shares(stack, scale)


class Tenant:
    """A caller with a tenant of its own."""

    def __init__(self, stack: Stack, name: str, weight: float = 1.0) -> None:
        self.name = name
        self._stack = stack
        wanted = {"name": name, "role": "user", "tenant": name, "weight": weight}
        self._key = stack.post("/v1/keys", wanted)["key"]

    def submit(self, model: str, lane: str, text: str = "hello") -> str:
        return str(self._stack.post("/v1/jobs", _asked(model, lane, text), key=self._key)["id"])

    def flood(self, model: str, count: int, text: str = "hello") -> None:
        """So many low jobs; returns when all of them wait in Redis."""
        # Only a job that comes by itself tells the queue its tenant's weight.
        self.submit(model, "low", text)
        for start in range(0, count, AT_ONCE):
            jobs = [_asked(model, "low", text)] * min(AT_ONCE, count - start)
            self._stack.post("/v1/groups", {"jobs": jobs}, key=self._key)
        deadline = time.monotonic() + PATIENCE
        query = "SELECT count(*) FROM jobs WHERE tenant = ? AND rank < 3 AND (rank = 0 OR NOT in_queue)"
        while self._stack.query(query, self.name) != [(0,)]:
            if time.monotonic() > deadline:
                raise Broken(f"the jobs of {self.name} are not queued after {PATIENCE:.0f} s")
            time.sleep(0.1)

    def waiting(self, model: str) -> int:
        return int(self._stack.query(WAITING, model, self.name)[0][0])


def _asked(model: str, lane: str, text: str) -> dict[str, Any]:
    return {"model": model, "priority": lane, "body": {"messages": [{"role": "user", "content": text}]}}


def _flood(stack: Stack, scale: Scale) -> Iterator[Result]:
    flooder, urgent, usual = (Tenant(stack, name) for name in ("flooder", "urgent", "usual"))
    began = time.monotonic()
    flooder.flood(FLOODED, scale.flood)
    say(f"  {flooder.waiting(FLOODED)} low jobs wait after {time.monotonic() - began:.0f} s")
    chance, since = random.Random(4), time.time()
    waits: dict[str, list[float]] = {"high": [], "medium": []}
    for _ in range(scale.trials):
        time.sleep(chance.uniform(0, 2 * SERVICE))
        ids = {"high": urgent.submit(FLOODED, "high"), "medium": usual.submit(FLOODED, "medium")}
        for lane, job in ids.items():
            waits[lane].append(_wait(stack, job))
    slot_time = _slot_time(stack, since, time.time())
    say(f"  a slot takes {slot_time:.3f} s for a job; waits of high and medium jobs: {waits}")
    for lane, found in waits.items():
        details = {"slots": SLOTS, "service_s": SERVICE, "slot_time_s": slot_time, "waits_s": found}
        yield Result(f"queue_flood_{lane}_wait", max(found) / slot_time, details)
    yield _flood_share(stack, flooder, usual, scale)


def _wait(stack: Stack, job: str) -> float:
    """Seconds from queued to started, when the job has ended."""
    deadline = time.monotonic() + PATIENCE
    while not (found := stack.query(TIMES, job)):
        if time.monotonic() > deadline:
            raise Broken(f"job {job} has not ended after {PATIENCE:.0f} s")
        time.sleep(0.02)
    queued, started = found[0]
    return round(started - queued, 4)


def _slot_time(stack: Stack, since: float, until: float) -> float:
    return SLOTS * (until - since) / int(stack.query(ENDED, FLOODED, since, until)[0][0])


def _flood_share(stack: Stack, flooder: Tenant, other: Tenant, scale: Scale) -> Result:
    other.flood(FLOODED, AT_ONCE)
    spent = _spent(stack, FLOODED, (flooder, other), scale.share_seconds)
    share = spent[flooder.name] / sum(spent.values())
    say(f"  beside another one the flooder gets {share:.3f}: {spent}")
    return Result("queue_flood_share", share / 0.5, {"device_s": spent, "jobs": scale.flood})


def _shares(stack: Stack, scale: Scale) -> Result:
    """The jobs of one are twice as long as the other's, which nobody tells the queue before."""
    light, heavy = Tenant(stack, "light", 1.0), Tenant(stack, "heavy", 3.0)
    light.flood(SHARED, AT_ONCE, LONG)
    heavy.flood(SHARED, 2 * AT_ONCE, SHORT)
    spent = _spent(stack, SHARED, (light, heavy), scale.share_seconds)
    error = abs(spent["light"] / spent["heavy"] * 3 - 1)
    say(f"  weights 1 and 3: device seconds {spent}, {error:.3f} off")
    return Result("queue_share_error", error, {"device_s": spent, "slots": SHARED_SLOTS})


def _spent(stack: Stack, model: str, tenants: Sequence[Tenant], seconds: float) -> dict[str, float]:
    """Device seconds of each tenant in a while after a warm-up. Raises Broken when one of them ran out of jobs."""
    time.sleep(WARM_UP)
    since = time.time()
    time.sleep(seconds)
    until = time.time()
    if short := [each.name for each in tenants if each.waiting(model) <= SHARED_SLOTS]:
        raise Broken(f"no jobs were left of {', '.join(short)}")
    time.sleep(1.0)  # for the recorder
    return {each.name: round(stack.query(SPENT, model, each.name, since, until)[0][0], 3) for each in tenants}
