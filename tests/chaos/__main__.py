"""``python -m tests.chaos --seed N``: break a whole inferq for a while and see whether it keeps its promises."""

import argparse
import os
import random
import sys
from pathlib import Path

from tests.chaos import report
from tests.chaos.catalogue import FAULTS, needs_of
from tests.chaos.ground import (
    CLOCKS,
    DISKS,
    EMBEDDED,
    POSTGRESQL,
    SENTINEL,
    SQLITE,
    Ground,
    drawn,
    ground_for,
    missing,
)
from tests.chaos.points import KINDS, POINTS
from tests.chaos.session import Finding, Plan, in_folder
from tests.engines.process import ROOT


def main() -> int:
    arguments = parser().parse_args()
    if arguments.list:
        for name, kind in KINDS.items():
            print(f"{name:20} {(kind.__doc__ or '').partition(chr(10))[0]}")
        return 0
    seed = arguments.seed or str(random.randrange(10**6))
    usual = POINTS if arguments.sweep else FAULTS
    names = arguments.faults.split(",") if arguments.faults else list(usual)
    unknown = set(names) - set(KINDS)
    if unknown:
        print(f"error: no fault {', '.join(sorted(unknown))}; known: {', '.join(KINDS)}", file=sys.stderr)
        return 2
    try:
        ground = _ground(arguments, names, seed)
    except (ValueError, LookupError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    names = [name for name in names if arguments.faults or KINDS[name].needs <= ground.offers]
    root = Path(arguments.root).resolve()
    on = ", ".join(sorted(ground.offers))
    print(f"chaos seed {seed}, {arguments.seconds:.0f} s, {root}, on {on}", flush=True)
    plan = Plan(
        seed, arguments.seconds, names, root, arguments.patience, sweep=arguments.sweep, ground=ground
    )

    def judge(finding: Finding, folder: Path) -> None:
        print(report.summary(finding))
        if finding.violations:
            print(report.failure(finding, seed))
            print(f"  logs and journals: {folder}")

    finding = in_folder(plan, keep=arguments.keep, judge=judge)
    print("RED" if finding.violations else f"green: seed {seed}")
    return 1 if finding.violations else 0


def _ground(arguments: argparse.Namespace, names: list[str], seed: str) -> Ground:
    """What the named faults need; for the usual mix one of the grounds that this machine offers, which the seed
    chooses. Raises ValueError, LookupError.
    """
    lacking, named = missing(), arguments.faults or arguments.sweep
    wanted = (needs_of(names, KINDS) if named else set()) | {arguments.database}
    if absent := wanted & lacking.keys():
        raise LookupError("; ".join(lacking[what] for what in sorted(absent)))
    if named:
        return ground_for(wanted - {None}, arguments.redis, arguments.database)
    for what, why in lacking.items():
        print(f"  left out: faults of {what}: {why}")
    redis, database = drawn(seed, lacking)
    needs = {DISKS, CLOCKS} - lacking.keys()
    return ground_for(needs, arguments.redis or redis, arguments.database or database)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    found.add_argument("--seed", help="which faults and which work, in which order; default: a new one")
    found.add_argument("--seconds", type=float, default=90.0, help="how long faults go on")
    found.add_argument("--faults", help="only these, separated by commas; see --list")
    found.add_argument(
        "--sweep", action="store_true", help="each fail point once (or each of --faults), instead of a mix"
    )
    found.add_argument(
        "--redis", choices=(EMBEDDED, SENTINEL), help="which Redis; default: as the seed or the faults say"
    )
    found.add_argument("--database", choices=(SQLITE, POSTGRESQL), help="which database; default: likewise")
    found.add_argument("--list", action="store_true", help="list the kinds of faults")
    found.add_argument("--patience", type=float, default=90.0, help="longest wait for quiet afterwards")
    found.add_argument("--keep", action="store_true", help="keep the folder with logs and journals")
    found.add_argument(
        "--root", default=os.environ.get("INFERQ_CHAOS_ROOT", str(ROOT)), help="the source tree that is run"
    )
    return found


if __name__ == "__main__":
    sys.exit(main())
