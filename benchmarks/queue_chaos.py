"""Bars of durability: mixed work while processes are killed, and durable jobs whose Redis loses everything.

The installation, the callers, the faults and the checker are the durability suite's (`tests/chaos`); see
`docs/durability.md`. Its lease is short (3 s), so that a minute sees many of them end.
"""

import contextlib
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psutil
import yaml

from benchmarks import recovery
from benchmarks.bars import Result
from benchmarks.plan import Scale
from benchmarks.recovery import Kill
from benchmarks.stack import Broken, say
from tests.chaos import session
from tests.chaos.evidence import gather
from tests.chaos.faults import WipeRedis
from tests.chaos.history import Journal, read
from tests.chaos.invariants import Violation, check
from tests.chaos.points import KINDS
from tests.chaos.site import NARROW, TENANTS, WIDE, Site
from tests.e2e.waiting import until

KILL_BARS = ("queue_kill_lost", "queue_kill_twice", recovery.BAR)
BARS = (*KILL_BARS, "queue_wipe_unfinished")
SEED = "bench"
KILLS = (
    "kill-api",
    "kill-scheduler",
    "kill-node",
    "kill-watcher",
    "kill-replica",
    "kill-replica",
    "kill-engine",
)
EACH = 2.0
LONG = 0.15
"""Share of the work that takes seconds."""
PATIENCE = 90.0
WORK = ("job", "call", "stream", "kept")
LOST = {
    "no_accepted_job_is_lost", "accepted_jobs_can_be_found", "calls_are_on_record", "each_file_comes_back",
}  # fmt: skip
"""Rules of the checker whose breach is a lost job. Others say that something happened twice, or was told wrongly."""


def measure(wanted: set[str], scale: Scale) -> Iterator[Result]:
    if wanted & set(KILL_BARS):
        for result in _killed(scale):
            if result.name in wanted:
                yield result
    if "queue_wipe_unfinished" in wanted:
        yield _wiped(scale)


class WithSpare(Site):
    """Each model has one replica more than its load needs: otherwise nobody has a free slot for what one has lost until
    it has started again.
    """

    replicas: ClassVar[dict[str, int]] = {WIDE: 3, NARROW: 2}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        tree = yaml.safe_load(self.config.read_text())
        for model, number in self.replicas.items():
            tree["models"][model]["replicas"] = number
        self.config.write_text(yaml.safe_dump(tree))


@contextlib.contextmanager
def _site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="inferq-bench-"))
    site = WithSpare(folder)
    try:
        site.up()
        yield site
    finally:
        left = site.down()
        shutil.rmtree(folder, ignore_errors=True)
    if left:
        raise Broken(f"processes were left: {left}")


def _killed(scale: Scale) -> Iterator[Result]:
    with _site() as site:
        stopping = threading.Event()
        clients = session.start_load(site, SEED, stopping, LONG)
        with recovery.Roll(site) as roll:
            try:
                kills, faults = _kill(site, scale.chaos_jobs)
            finally:
                stopping.set()
            for client in clients:
                client.join(PATIENCE)
            unquiet = session.quiesce(site, PATIENCE)
        evidence = gather(read(site.journals))
        session.collect(site, evidence)
        handed = list(recovery.handed_on(site))
        evidence.left |= unquiet | session.left_behind(site)
    violations = check(evidence)
    lost = [each for each in violations if each.rule in LOST]
    asked = len(evidence.of_kind(*WORK))
    say(f"  {asked} jobs, {faults} processes killed, {len(violations)} promises broken")
    details = {"jobs": asked, "kills": faults, "violations": [_told(each) for each in violations]}
    yield Result("queue_kill_lost", len(lost), details)
    yield Result("queue_kill_twice", len(violations) - len(lost), details)
    yield recovery.result(evidence, kills, handed, roll)


def _told(violation: Violation) -> str:
    return f"{violation.rule}: {violation.text}"


def _kill(site: Site, jobs: int) -> tuple[list[Kill], int]:
    """Kill a process each two seconds until so many jobs were asked for."""
    chance, journal, kills = random.Random(SEED), Journal(site.journals, "nemesis"), []
    number = 0
    while _asked(site) < jobs:
        time.sleep(EACH)
        number += 1
        fault = KINDS[chance.choice(KILLS)](site, chance)
        engines = {each.pid: _below(each) for each in site.replicas_running()}
        began = time.time()
        what = fault.inject()
        journal.note("inject", fault=fault.name, number=number, what=what, began=began)
        fault.heal()
        journal.note("heal", fault=fault.name, number=number)
        if fault.name == "kill-replica" and what.startswith("pid "):
            kills.append(Kill(began, engines.get(int(what.removeprefix("pid ")), frozenset())))
    time.sleep(EACH)
    journal.close()
    return kills, number


def _below(process: psutil.Process) -> frozenset[int]:
    with contextlib.suppress(psutil.Error):
        return frozenset(child.pid for child in process.children(recursive=True))
    return frozenset()


def _asked(site: Site) -> int:
    return sum(event["event"] == "invoke" and event["kind"] in WORK for event in read(site.journals))


def _wiped(scale: Scale) -> Result:
    with _site() as site:
        body = {"messages": [{"role": "user", "content": "#wiped !delay=0.4"}]}
        with contextlib.ExitStack() as held:
            # In turn: no tenant may fill the queue alone.
            callers = [held.enter_context(site.call("api-1", tenant)) for tenant in TENANTS]
            for number in range(scale.wiped):
                caller = callers[number % len(callers)]
                caller.post("/v1/jobs", json={"model": WIDE, "body": body}).raise_for_status()
        before = _counts(site)
        fault = WipeRedis(site, random.Random(SEED))
        began = time.monotonic()
        fault.inject()
        fault.heal()
        with contextlib.suppress(AssertionError):
            until(lambda: not session.open_rows(site), "every durable job has ended", PATIENCE)
        seconds, after = time.monotonic() - began, _counts(site)
    unfinished = scale.wiped - after.get("succeeded", 0)
    say(f"  when Redis was wiped: {before}; {seconds:.1f} s later: {after}")
    return Result("queue_wipe_unfinished", unfinished, {"before": before, "after": after, "seconds": seconds})


def _counts(site: Site) -> dict[str, int]:
    rows = site.query("SELECT state, count(*) AS n FROM jobs WHERE durable GROUP BY state")
    return {row["state"]: row["n"] for row in rows}
