"""How soon the jobs of a killed replica are handed on, and where the time goes.

    kill ──the lease ends, the leader looks──► queued again ──a ready replica has a slot──► started again

It reads what a run has left: the engine's book of runs, the rows, the schedulers' logs, and its own roll of replicas.
"""

import contextlib
import datetime as dt
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson
import redis

from benchmarks.bars import Result
from benchmarks.load import percentiles
from benchmarks.stack import Broken, say
from tests.chaos.evidence import Evidence, Run
from tests.chaos.site import SCHEDULERS, Site, is_alive
from tests.e2e.stack import LEASE

BAR = "queue_kill_recovery_p95_s"
LOST = re.compile(r"^(\S+ \S+) WARNING \S+ job (\S+) lost its replica: \w+$", re.MULTILINE)
"""What a scheduler says when it takes a job from a replica that is gone."""
CALL_EVERY = 0.2
BEFORE = 10.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A replica that was killed, and the processes of its engine."""

    at: float
    engine: frozenset[int]


class Roll:
    """Calls the roll of replicas that are ready and alive, as long as its context lasts."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._call, name="roll", daemon=True)
        self.calls: list[tuple[float, Mapping[str, int]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _call(self) -> None:
        with self._site.redis() as client:
            while not self._stopping.wait(CALL_EVERY):
                with contextlib.suppress(redis.RedisError):
                    self.calls.append(
                        (time.time(), Counter(_ready(client, self._site.settings.queue.prefix)))
                    )

    def ready(self, model: str, at: float) -> int:
        """Replicas of the model that were ready at a moment."""
        before = [ready for moment, ready in self.calls if moment <= at]
        return before[-1].get(model, 0) if before else 0


def _ready(client: Any, prefix: str) -> Iterator[str]:
    names = client.smembers(f"{prefix}replicas")
    for record in filter(
        None, client.mget([f"{prefix}replica:{name.decode()}" for name in names] or ["none"])
    ):
        replica = orjson.loads(record)
        if replica["state"] == "ready" and is_alive(replica["pid"]):
            yield replica["model"]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of one run that a kill took along; seconds from the kill, None for what did not happen.

    `ready` is how many replicas of its model were ready when it was queued again.
    """

    job: str
    model: str
    queued: float | None
    started: float | None
    ended: float | None
    ready: int
    disturbed: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Until another run began, or the job had ended without one."""
        return min(each for each in (self.started, self.ended) if each is not None)

    def as_dict(self) -> dict[str, Any]:
        return {
            "s": self.seconds,
            **{name: getattr(self, name) for name in ("job", "model", "queued", "started", "ended", "ready")},
            "disturbed": list(self.disturbed),
        }


def result(
    evidence: Evidence, kills: Sequence[Kill], handed: Iterable[tuple[str, float]], roll: Roll
) -> Result:
    """The bar, with its parts. Raises Broken when no kill took a run along."""
    moments = list(handed)
    found = [
        _recovery(evidence, kill, run, moments, roll) for kill in kills for run in lost_runs(evidence, kill)
    ]
    if not found:
        raise Broken("no job ran in any of the replicas that were killed")
    parts = {
        "s": [each.seconds for each in found],
        "queued_again_s": [each.queued for each in found if each.queued is not None],
        "started_again_s": [each.started for each in found if each.started is not None],
        "another_ready_s": [each.seconds for each in found if each.ready],
        "none_ready_s": [each.seconds for each in found if not each.ready],
        "undisturbed_s": [each.seconds for each in found if not each.disturbed],
    }
    for name, seconds in parts.items():
        say(f"  {name}: {len(seconds)} runs, {percentiles(seconds)}")
    details = {
        "lease_s": LEASE,
        **{name: {"runs": len(seconds), **percentiles(seconds)} for name, seconds in parts.items()},
        "runs": [each.as_dict() for each in found],
    }
    return Result(BAR, percentiles(parts["s"])["p95"], details)


def lost_runs(evidence: Evidence, kill: Kill) -> Iterator[Run]:
    """What ran in the engine of the replica, for jobs that had not ended and that nobody cancelled afterwards."""
    for run in evidence.runs.values():
        under_way = run.began < kill.at and (run.ended is None or run.ended >= kill.at)
        if run.pid in kill.engine and under_way and _end_of(evidence, run) > kill.at:
            again = any(each.began > kill.at for each in evidence.runs_of(run.job))
            if again or evidence.rows.get(run.job, {}).get("state") != "cancelled":
                yield run


def handed_on(site: Site) -> Iterator[tuple[str, float]]:
    """Jobs that were taken from replicas that are gone, and when, as the schedulers tell."""
    for scheduler in SCHEDULERS:
        for moment, job in LOST.findall(site.log(scheduler)):
            yield job, dt.datetime.strptime(moment, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


def _recovery(
    evidence: Evidence, kill: Kill, run: Run, handed: Sequence[tuple[str, float]], roll: Roll
) -> Recovery:
    def since(moments: Iterable[float]) -> float | None:
        first = min((each for each in moments if each > kill.at), default=None)
        return None if first is None else round(first - kill.at, 2)

    queued = since(at for job, at in handed if job == run.job)
    started = since(each.began for each in evidence.runs_of(run.job))
    end = _end_of(evidence, run)
    ended = round(end - kill.at, 2) if end < float("inf") else None
    seconds = min(each for each in (started, ended, float("inf")) if each is not None)
    return Recovery(
        job=run.job,
        model=run.model,
        queued=queued,
        started=started,
        ended=ended,
        ready=roll.ready(run.model, kill.at + (queued or LEASE)),
        disturbed=tuple(_disturbed(evidence, kill, seconds)),
    )


def _end_of(evidence: Evidence, run: Run) -> float:
    row = evidence.rows.get(run.job)
    return row["finished_at"] or float("inf") if row is not None else float("inf")


def _disturbed(evidence: Evidence, kill: Kill, seconds: float) -> Iterator[str]:
    """What else was killed that a recovery needs: a scheduler shortly before or meanwhile, another replica."""
    for window in evidence.windows:
        near = kill.at - BEFORE <= window.began <= kill.at + seconds and abs(window.began - kill.at) > 0.01
        if near and window.name in ("kill-scheduler", "kill-replica", "kill-node", "kill-engine"):
            yield window.name
