"""One run of the suite: bring a site up, load it, break it, heal it, wait until it is quiet, gather the evidence."""

import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

from tests.chaos import leaks, truth
from tests.chaos.auditor import Auditor
from tests.chaos.dropper import Dropper
from tests.chaos.evidence import DEAD_LETTER, Evidence, gather
from tests.chaos.ground import Ground
from tests.chaos.history import read
from tests.chaos.invariants import Violation, check
from tests.chaos.load import Client, Known
from tests.chaos.nemesis import Nemesis
from tests.chaos.probe import Probe
from tests.chaos.site import USUAL, Site
from tests.chaos.steward import Steward
from tests.e2e.waiting import until

CLIENTS = 6
WARM_UP = 3.0
AFTERWARDS = 6.0
"""Seconds of load after the last heal, which show how long its fault was felt."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `root` is the source tree whose processes are broken; `patience` bounds each wait after healing."""

    seed: str
    seconds: float
    faults: Sequence[str]
    root: Path
    patience: float = 90.0
    long: float = 0.08
    """Share of the work for the wide model that takes seconds, longer than many a lease."""
    sweep: bool = False
    """Each of the faults once, however long that takes, instead of a seeded mix for so many seconds."""
    ground: Ground = USUAL


@dataclass(slots=True)
class Finding:
    """What came out. Without violations the promises held."""

    evidence: Evidence
    violations: list[Violation] = field(default_factory=list)
    looks: int = 0
    held: dict[str, leaks.Held] = field(default_factory=dict)
    most_waiting: int = 0
    began: float = 0.0
    booted: float = 0.0
    quiet: float = 0.0
    """Seconds: to come up, and from the last heal to quiet."""


def run(plan: Plan, folder: Path) -> Finding:
    """Everything, below `folder`, which is left as it is for whoever wants to look."""
    began = time.time()
    site = Site(folder, plan.root, plan.ground)
    stopping = threading.Event()
    try:
        site.up()
        booted = time.time() - began
        print(f"  up after {booted:.1f} s: {folder}", flush=True)
        at_rest = leaks.look(site)
        auditor = Auditor(site, stopping)
        clients = start_load(site, plan.seed, stopping, plan.long, flows=True)
        clients.append(Steward(site, plan.seed, stopping, plan.patience))
        clients[-1].start()
        auditor.start()
        stopping.wait(WARM_UP)
        nemesis = Nemesis(site, plan.seed, plan.faults)
        nemesis.sweep() if plan.sweep else nemesis.rage(plan.seconds)
        healed = time.time()
        stopping.wait(AFTERWARDS)
        stopping.set()
        for client in [*clients, auditor]:
            client.join(plan.patience)
        unquiet = quiesce(site, plan.patience)
        quiet = time.time() - healed
        probed = [] if unquiet else Probe(site, plan.patience).run()
        unquiet = unquiet or quiesce(site, plan.patience)
        finding = Finding(gather(read(site.journals)), began=began, booted=booted, quiet=quiet)
        collect(site, finding.evidence)
        finding.evidence.left |= unquiet | left_behind(site) | held_on(site, at_rest)
        finding.held = leaks.look(site)
        finding.looks, finding.most_waiting = auditor.looks, auditor.most_waiting
        defects = [c for c in clients if c.is_alive() or getattr(c, "defect", None)]
    finally:
        stopping.set()
        processes = site.down()
    if processes:
        finding.evidence.left["processes"] = processes
    finding.violations = check(finding.evidence) + probed
    finding.violations += [
        Violation("clients_end", f"{client.name}: {getattr(client, 'defect', None) or 'still waits'}")
        for client in defects
    ]
    finding.violations += [Violation("points_are_reached", name) for name in site.unreached]
    return finding


def start_load(
    site: Site, seed: str, stopping: threading.Event, long: float, *, flows: bool = False
) -> list[threading.Thread]:
    known = Known()
    clients: list[threading.Thread] = [
        Client(site, f"client-{number}", seed, known, stopping, long, flows=flows)
        for number in range(1, CLIENTS + 1)
    ]
    clients.append(Dropper(site, seed, stopping))
    for client in clients:
        client.start()
    return clients


def quiesce(site: Site, patience: float) -> dict[str, list[str]]:
    """Wait until all is ready and nothing is under way; what did not come to rest in time."""
    found: dict[str, list[str]] = {}
    deadline = time.monotonic() + patience

    def wait(look: Callable[[], object], what: str, tell: Callable[[], list[str]]) -> None:
        try:
            until(look, what, max(deadline - time.monotonic(), 1.0))
        except AssertionError:
            found[f"not within {patience:.0f} s: {what}"] = tell()

    wait(site.all_ready, "all replicas are ready", lambda: [str(each) for each in site.replica_states()])
    wait(lambda: not open_rows(site), "every durable job has ended", lambda: open_rows(site))
    wait(lambda: is_idle(site), "Redis holds no live job", lambda: [str(snapshot(site))])
    wait(lambda: not busy(site), "all slots are free", lambda: busy(site))
    wait(lambda: not untold(site), "every message has arrived", lambda: untold(site))
    wait(lambda: not list(inbox(site)), "the watched folder is empty", lambda: [str(p) for p in inbox(site)])
    return found


def open_rows(site: Site) -> list[str]:
    marks = ", ".join("?" * len(DEAD_LETTER))
    rows = site.query(f"SELECT id, state FROM jobs WHERE durable AND state NOT IN ({marks})", *DEAD_LETTER)
    return [f"{row['id']} {row['state']}" for row in rows]


def untold(site: Site) -> list[str]:
    rows = site.query("SELECT subject, attempts, last_error FROM deliveries WHERE delivered_at IS NULL")
    return [f"{row['subject']} after {row['attempts']} tries: {row['last_error']}" for row in rows]


def snapshot(site: Site) -> truth.Snapshot:
    with site.redis() as client:
        return truth.look(client)


def is_idle(site: Site) -> bool:
    try:
        return snapshot(site).is_idle
    except (redis.RedisError, OSError):
        return False


def busy(site: Site) -> list[str]:
    return [f"{each['name']} busy {each['busy']}" for each in site.replica_states() if each["busy"]]


def inbox(site: Site) -> list[Path]:
    folders = site.home / "llm_generated"
    return [*folders.joinpath("raw").glob("*.json"), *folders.joinpath("temp").glob("*.json")]


def collect(site: Site, evidence: Evidence) -> None:
    """What SQL and the folders of results hold."""
    try:
        evidence.rows = {row["id"]: row for row in site.query("SELECT * FROM jobs")}
        evidence.groups = {row["id"]: row for row in site.query("SELECT * FROM groups")}
    except (sqlite3.Error, psycopg.Error) as error:
        evidence.left["the database"] = [str(error)]
    for row in evidence.rows.values():
        if row["artifact"]:
            row["result"] = stored(site, row["artifact"])
    folders = site.home / "llm_generated"
    for file in [*folders.glob("processed/*.json"), *folders.glob("errors/*.error.json")]:
        marker = file.name.removesuffix(".json").removesuffix(".error")
        evidence.delivered.setdefault(marker, []).append(str(file.relative_to(folders)))


def stored(site: Site, sha256: str) -> bytes | None:
    """An artifact's bytes; None when it is not there, which no rule excuses."""
    file = site.home / "artifacts" / sha256[:2] / sha256
    return file.read_bytes() if file.exists() else None


def left_behind(site: Site) -> dict[str, list[str]]:
    """What should have gone with the last job."""
    found: dict[str, list[str]] = {}
    with site.redis() as client:
        found["Redis keys without an end"] = truth.without_end(client)
        found["what does not fit together in Redis at the end"] = truth.look(client).wrong
    found["unfinished artifacts"] = [str(p) for p in (site.home / "artifacts").rglob("*.partial")]
    return {what: names for what, names in found.items() if names}


def held_on(site: Site, at_rest: dict[str, leaks.Held]) -> dict[str, list[str]]:
    """What processes should have given back."""
    found = {
        "files and sockets": leaks.leaked(at_rest, leaks.look(site)),
        "connections of nobody in Redis": leaks.orphaned(site),
        "children that nobody waited for": leaks.zombies(site),
    }
    return {what: names for what, names in found.items() if names}


def in_folder(plan: Plan, *, keep: bool, judge: Callable[[Finding, Path], None]) -> Finding:
    """Run in a folder of its own, which stays when it is asked for or something was found."""
    folder = Path(tempfile.mkdtemp(prefix="iq-chaos-"))
    finding = run(plan, folder)
    judge(finding, folder)
    if not keep and not finding.violations:
        shutil.rmtree(folder, ignore_errors=True)
    return finding
