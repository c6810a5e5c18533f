"""Breaks the site as the seed says: one fault after the other, sometimes a second one on top of the first."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.faults import Fault
from tests.chaos.history import Journal
from tests.chaos.points import KINDS
from tests.chaos.site import Site
from tests.e2e.waiting import until

GAP = (1.0, 6.0)
"""Seconds between the end of a fault and the next one."""
TWO_AT_ONCE = 0.25


@dataclass(frozen=True, slots=True)
class Planned:
    """One step: these faults together, then a pause."""

    names: tuple[str, ...]
    seed: str
    gap: float


def plan(seed: str, names: Sequence[str], steps: int) -> list[Planned]:
    """What the seed says, so many steps of it. Each kind comes once before any comes twice, as far as steps go."""
    rng = random.Random(f"{seed}/plan")
    found: list[Planned] = []
    waiting: list[str] = []
    while names and len(found) < steps:
        if not waiting:
            waiting = sorted(names, key=lambda name: rng.random() ** (1 / KINDS[name].weight), reverse=True)
        chosen = [waiting.pop(0)]
        if waiting and rng.random() < TWO_AT_ONCE and _may_meet(chosen[0], waiting[0]):
            chosen.append(waiting.pop(0))
        found.append(Planned(tuple(chosen), f"{seed}/{len(found)}", rng.uniform(*GAP)))
    return found


def _may_meet(one: str, other: str) -> bool:
    return not (KINDS[one].moves_redis and KINDS[other].moves_redis)


@dataclass(slots=True)
class _Running:
    fault: Fault
    number: int
    ends: float = field(default=0.0)


class Nemesis:
    """Carries a plan out and journals it."""

    def __init__(self, site: Site, seed: str, names: Sequence[str]) -> None:
        self.site = site
        self.journal = Journal(site.journals, "nemesis")
        self._seed, self._names = seed, names
        self._plan = plan(seed, names, 1000)
        self._count = 0

    def rage(self, seconds: float) -> None:
        """Break and heal for so long; returns with everything healed."""
        deadline = time.monotonic() + seconds
        if not self._names:
            time.sleep(seconds)
        for step in self._plan:
            if time.monotonic() >= deadline:
                return
            self.carry_out(step)
            time.sleep(min(step.gap, max(0.0, deadline - time.monotonic())))

    def sweep(self) -> None:
        """Each kind once, by itself, in the given order, each in a site that is whole."""
        for name in self._names:
            self.carry_out(Planned((name,), f"{self._seed}/{name}", 0.0))
            until(self.site.all_ready, f"all is well again after {name}")

    def carry_out(self, step: Planned) -> None:
        running: list[_Running] = []
        try:
            for name in step.names:
                fault = KINDS[name](self.site, random.Random(f"{step.seed}/{name}"))
                self._count += 1
                one = _Running(fault, self._count)
                running.append(one)
                began = time.time()
                what = fault.inject()
                one.ends = time.monotonic() + fault.seconds
                at = self.journal.note("inject", fault=name, number=one.number, what=what, began=began)
                print(f"  {time.strftime('%H:%M:%S', time.localtime(at))} {name}: {what}", flush=True)
        finally:
            for one in sorted(running, key=lambda one: one.ends):
                time.sleep(max(0.0, one.ends - time.monotonic()))
                one.fault.heal()
                self.journal.note("heal", fault=one.fault.name, number=one.number)
