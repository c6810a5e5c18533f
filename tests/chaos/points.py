"""The sweep: at each fail point a process dies between its two steps, and another one has to go on from there.

A point is a fault like the others: its service is started again armed, dies where it was told to, and is started again
by the supervisor, unarmed. Where a point is reached only in an unusual situation, the fault brings that about.
"""

import contextlib
import shutil
import time
from typing import ClassVar

import psutil

from tests.chaos import truth
from tests.chaos.catalogue import FAULTS
from tests.chaos.faults import Fault, kill
from tests.chaos.ground import EMBEDDED
from tests.chaos.site import APIS, SCHEDULERS
from tests.e2e.waiting import until

WAIT = 20.0
"""Seconds in which a point has to be reached."""


class Point(Fault):
    """Processes die at one place in the code."""

    point: ClassVar[str]
    services: ClassVar[tuple[str, ...]]
    nth: ClassVar[int] = 2

    def inject(self) -> str:
        seen = self._deaths()
        for service in self.services:
            self.site.failpoints[service] = f"{self.point}:kill:{self.nth}"
            kill(self.site, service)
        self.prepare()
        deadline = time.monotonic() + WAIT
        while self._deaths() == seen and time.monotonic() < deadline:
            time.sleep(0.05)
        reached = self._deaths() - seen
        if not reached:
            self.site.unreached.append(self.point)
        return f"{'reached' if reached else 'NOT REACHED'} in {', '.join(self.services)}"

    def prepare(self) -> None:
        """Bring about that the point is reached."""

    def heal(self) -> None:
        """Those that did not die there are still armed."""
        for service in self.services:
            self.site.failpoints.pop(service, None)
            kill(self.site, service)

    def _deaths(self) -> int:
        line = f"failpoint {self.point}: kill"
        return sum(file.read_text(errors="replace").count(line) for file in self.site.all_logs())


class _OfApi(Point):
    services, breaks_calls = APIS, True


class _OfScheduler(Point):
    services = SCHEDULERS


class _OfReplica(Point):
    """The node is armed; its replicas inherit that, so they are replaced at the beginning and at the end."""

    services, breaks_runs, nth = ("node",), True, 3

    def prepare(self) -> None:
        self._replace()

    def heal(self) -> None:
        super().heal()
        self._replace()

    def _replace(self) -> None:
        for replica in self.site.replicas_running():
            with contextlib.suppress(psutil.NoSuchProcess):
                replica.kill()


class Reserved(_OfApi):
    name = point = "intake.reserved"


class Committed(_OfApi):
    name = point = "intake.committed"


class Cancelled(_OfApi):
    name, point, nth = "intake.cancelled", "intake.cancelled", 1


class Requeued(_OfApi):
    name, point, nth = "intake.requeued", "intake.requeued", 1


class RecorderRead(_OfScheduler):
    name = point = "recorder.read"


class RecorderCommitted(_OfScheduler):
    name = point = "recorder.committed"


class Restored(_OfScheduler):
    """Needs jobs that Redis has forgotten."""

    name, point, nth = "reconciler.restored", "reconciler.restored", 1
    forgets, breaks_runs, moves_redis, needs = True, True, True, frozenset({EMBEDDED})

    def prepare(self) -> None:
        self.site.kill_redis()
        self.site.replace_redis_data(None)
        self.site.start("redis")


class Removing(_OfScheduler):
    """Needs jobs that have ended in SQL and go on in Redis: Redis comes back as it was before their ends."""

    name, point, nth = "reconciler.removing", "reconciler.removing", 1
    forgets, breaks_runs, moves_redis, needs = True, True, True, frozenset({EMBEDDED})

    def prepare(self) -> None:
        copy = self.site.folder / "older"
        shutil.rmtree(copy, ignore_errors=True)
        with self.site.redis() as client:
            until(lambda: truth.look(client).live, "a job is under way")
            live = truth.look(client).live
        shutil.copytree(self.site.redis_data, copy)
        until(lambda: self._ended(live), "one of the jobs has ended")
        self.site.kill_redis()
        self.site.replace_redis_data(copy)
        self.site.start("redis")

    def _ended(self, ids: list[str]) -> bool:
        marks = ", ".join("?" * len(ids))
        states = "'succeeded', 'failed', 'cancelled'"
        return bool(
            self.site.query(f"SELECT id FROM jobs WHERE id IN ({marks}) AND state IN ({states})", *ids)
        )


class RunnerClaimed(_OfReplica):
    name = point = "runner.claimed"


class RunnerAnswered(_OfReplica):
    name = point = "runner.answered"


class RunnerFinished(_OfReplica):
    name = point = "runner.finished"


class RunnerStored(_OfReplica):
    """Reached by results that are too big for a record."""

    name, point, nth = "runner.stored", "runner.stored", 1


class NodeStarted(_OfReplica):
    name, point, nth = "node.started", "node.started", 1


class Submitted(Point):
    name, point, services, nth = "inbox.submitted", "inbox.submitted", ("watcher",), 1


class Written(Point):
    name, point, services, nth = "outbox.written", "outbox.written", ("watcher",), 1


POINTS: dict[str, type[Point]] = {
    kind.name: kind
    for group in (Point, _OfApi, _OfScheduler, _OfReplica)
    for kind in group.__subclasses__()
    if "point" in vars(kind)
}
KINDS = FAULTS | POINTS
