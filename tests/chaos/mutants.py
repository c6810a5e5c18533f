"""The teeth of the suite: known mistakes, each planted into a copy of the source, each of which has to turn a run red.

``python -m tests.chaos.mutants [name ...]``. A mistake whose text is not found any more is an error: somebody rewrote
the place, and the mistake has to be planted anew. Without a mistake the same seeds are green.
"""

import argparse
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import report
from tests.chaos.session import Finding, Plan, in_folder
from tests.engines.process import ROOT

FOLDERS = ("inferq", "api", "queues", "storage", "workers", "watchers")
SEEDS = ("1", "2", "3")
PATIENCE = 20.0
"""Seconds to wait for quiet: a lost job never comes."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake, and the faults that make it felt. `rules` are those of which one has to speak."""

    name: str
    file: str
    old: str
    new: str
    rules: tuple[str, ...]
    faults: tuple[str, ...] = ()
    seconds: float = 15.0
    long: float = 0.08
    sweep: bool = False


MUTANTS = [
    Mutant(
        "no-reaper",
        "queues/scheduler.py",
        'flat = await self._scripts("reap", REAP_LIMIT)',
        "flat = []",
        ("no_accepted_job_is_lost",),
        ("kill-replica",),
    ),
    Mutant(
        "ack-before-commit",
        "queues/intake.py",
        "        created = await self._ledger.accept(spec, bound=bound, claim=claim)\n",
        """
        async def later() -> None:
            await __import__("asyncio").sleep(2)
            await self._ledger.accept(spec, bound=bound, claim=claim)

        self._late, created = __import__("asyncio").create_task(later()), True
""",
        ("no_accepted_job_is_lost", "accepted_jobs_can_be_found"),
        ("total-loss",),
        20.0,
        long=0.6,
    ),
    Mutant(
        "no-reconcile",
        "queues/reconciler.py",
        "return await self._restore(), await self._remove()",
        "return 0, 0",
        ("no_accepted_job_is_lost",),
        ("wipe-redis",),
    ),
    Mutant(
        "cancel-ignored-while-running",
        "queues/intake.py",
        "        if job.terminal:\n            return job\n        if job.spec.durable:",
        "        if job.terminal or job.state is JobState.RUNNING:\n            return job\n"
        "        if job.spec.durable:",
        ("a_cancel_is_an_end",),
    ),
    Mutant(
        "offset-before-commit",
        "queues/recorder.py",
        """        failpoints.reach("recorder.read")
        if not await self._ledger.record(recorded, stream=STREAM, old=old, new=new):""",
        # What lies before the offset is read again as long as it is in the stream, so that has to go too.
        """        await self._ledger.record([], stream=STREAM, old=old, new=new)
        await self._settle([entry_id for entry_id, _ in entries], jobs)
        failpoints.reach("recorder.read")
        if not await self._ledger.record(recorded, stream=STREAM, old=new, new=new):""",
        ("no_accepted_job_is_lost",),
        ("recorder.read",),
        sweep=True,
    ),
    Mutant(
        "no-token-check",
        "queues/lua/finish.lua",
        "job.state == 'running' and job.token == token",
        "job.state == 'running'",
        ("results_are_of_the_last_attempt", "redis_fits_together"),
        ("freeze-replica",),
        30.0,
        long=0.6,
    ),
    Mutant(
        "no-lease",
        "queues/lua/prelude.lua",
        "if sign > 0 then redis.call('ZADD', P .. 'leases', text(ends), id)",
        "if sign > 0 then ends = nil",
        ("redis_fits_together",),
    ),
    Mutant(
        "no-operation-id",
        "queues/lua/prelude.lua",
        "local function replayed() return found[2] and cmsgpack.unpack(found[2]) end",
        "local function replayed() return false end",
        ("no_attempt_is_spent_for_nothing",),
        ("cut",),
        30.0,
    ),
    Mutant(
        "no-virtual-time",
        "queues/lua/claiming.lua",
        "text(num(known[3]) + est / (w > 0 and w or 1))",
        "text(num(known[3]))",
        ("nobody_stands_in_front",),
    ),
    Mutant(
        "pause-not-told",
        "queues/controls.py",
        'await self._scripts("control", 0, _field(kind, name), value)',
        "pass",
        ("a_pause_holds",),
        seconds=30.0,
    ),
    Mutant(
        "dependents-at-once",
        "storage/dependents.py",
        "    _insert(connection, waiting)\n",
        "    _make_due(connection, [spec.id for spec in waiting])\n",
        ("a_dependent_waits",),
    ),
    Mutant(
        "end-not-told",
        "storage/endings.py",
        "deliveries.tell(connection, every, finished)",
        "deliveries.tell(connection, every[:0], finished)",
        ("each_end_is_told",),
    ),
    Mutant(
        "time-ignored",
        "storage/rows.py",
        '        "due_at": spec.due_at,\n',
        '        "due_at": spec.created_at,\n',
        ("nothing_runs_before_its_time",),
    ),
    Mutant(
        "file-per-request",
        "api/boundary.py",
        "        started = time.perf_counter()\n",
        "        started = time.perf_counter()\n"
        '        self.__dict__.setdefault("leak", []).append(open(os.devnull))\n',
        ("nothing_is_left",),
    ),
]


def planted(mutant: Mutant, folder: Path) -> Path:
    """A copy of the source with the mistake in it. Raises LookupError when its place is not found exactly once."""
    root = folder / "source"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    file = root / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: its text is {text.count(mutant.old)} times in {mutant.file}")
    file.write_text(text.replace(mutant.old, mutant.new))
    return root


def catch(mutant: Mutant) -> str | None:
    """What the first red seed said, or None when all stayed green."""
    with tempfile.TemporaryDirectory(prefix="iq-mutant-") as name:
        root = planted(mutant, Path(name))
        for seed in SEEDS:
            plan = Plan(seed, mutant.seconds, mutant.faults, root, PATIENCE, mutant.long, mutant.sweep)
            finding = in_folder(plan, keep=False, judge=_quiet)
            said = {violation.rule for violation in finding.violations}
            if said & set(mutant.rules):
                return f"seed {seed}: {', '.join(sorted(said))}"
            if said:
                print(report.failure(finding, seed))
    return None


def _quiet(finding: Finding, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutants", description=__doc__)
    parser.add_argument(
        "names", nargs="*", help=f"which; all of them when none is named: {', '.join(_names())}"
    )
    parser.add_argument("--at-once", type=int, default=2, help="how many at a time; most of a run is waiting")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(_names()):
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}")
    wanted = [mutant for mutant in MUTANTS if mutant.name in (arguments.names or _names())]
    with ProcessPoolExecutor(arguments.at_once) as runs:
        survived = [
            mutant.name for mutant, said in zip(wanted, runs.map(_tried, wanted), strict=True) if not said
        ]
    print(f"survived: {', '.join(survived)}" if survived else "all caught")
    return 1 if survived else 0


def _tried(mutant: Mutant) -> str | None:
    began = time.monotonic()
    said = catch(mutant)
    print(f"mutant {mutant.name}: {said or 'SURVIVED'} ({time.monotonic() - began:.0f} s)", flush=True)
    return said


def _names() -> list[str]:
    return [mutant.name for mutant in MUTANTS]


if __name__ == "__main__":
    sys.exit(main())
