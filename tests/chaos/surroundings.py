"""Faults of what inferq stands on, each where its site offers it: Redis behind Sentinel, PostgreSQL, disks, clocks."""

import random
from typing import ClassVar

import psutil

from tests.chaos.faults import Fault
from tests.chaos.ground import CLOCKS, DISKS, EMBEDDED, POSTGRESQL, SENTINEL, SQLITE
from tests.chaos.site import APIS, SCHEDULERS, Site
from tests.e2e.waiting import until

WHOLE = 60.0
"""Seconds within which sentinels have to agree again."""


class FailOver(Fault):
    """An operator makes the copy the primary. What the copy had not yet been told is lost."""

    name, needs, weight = "fail-over", frozenset({SENTINEL}), 2.0
    forgets, breaks_runs, moves_redis = True, True, True

    def __init__(self, site: Site, rng: random.Random) -> None:
        super().__init__(site, rng)
        assert site.sentinels
        self.sentinels = site.sentinels
        self.old = 0

    def inject(self) -> str:
        self.old = self.sentinels.primary()
        self.sentinels.fail_over()
        until(lambda: self.sentinels.primary() not in (0, self.old), "there is another primary", WHOLE)
        return f"{self.old} to {self.sentinels.primary()}"

    def heal(self) -> None:
        until(self.sentinels.is_whole, "the sentinels agree", WHOLE)


class LosePrimary(FailOver):
    """kill -9. Away for longer than the sentinels wait it comes back as the copy, else as what it was."""

    name, hold = "lose-primary", (0.0, 6.0)

    def inject(self) -> str:
        self.old = self.sentinels.primary()
        psutil.Process(self.sentinels.pids[self.old]).kill()
        return f"{self.old} for {self.seconds:.1f} s"

    def heal(self) -> None:
        self.sentinels.start_one(self.old)
        super().heal()


class FreezePrimary(FailOver):
    """It comes back believing that it is the primary, and is told otherwise by whoever asks the sentinels."""

    name, hold = "freeze-primary", (0.5, 8.0)

    def inject(self) -> str:
        self.old = self.sentinels.primary()
        psutil.Process(self.sentinels.pids[self.old]).suspend()
        return f"{self.old} for {self.seconds:.1f} s"

    def heal(self) -> None:
        psutil.Process(self.sentinels.pids[self.old]).resume()
        super().heal()


class LoseSentinel(FailOver):
    """One of three; two still decide."""

    name, hold, weight = "lose-sentinel", (1.0, 8.0), 1.0
    forgets, breaks_runs, moves_redis = False, False, False

    def inject(self) -> str:
        self.old = self.rng.choice(self.sentinels.sentinels)
        psutil.Process(self.sentinels.pids[self.old]).kill()
        return f"{self.old} for {self.seconds:.1f} s"

    def heal(self) -> None:
        self.sentinels.start_one(self.old)
        super().heal()


class RestartPostgres(Fault):
    """As an update does it: every connection is broken off."""

    name, hold, needs, weight = "restart-postgres", (0.0, 8.0), frozenset({POSTGRESQL}), 2.0

    def inject(self) -> str:
        assert self.site.postgres
        self.site.postgres.stop()
        return f"for {self.seconds:.1f} s"

    def heal(self) -> None:
        assert self.site.postgres
        self.site.postgres.start()


class LosePostgres(RestartPostgres):
    """kill -9 of all its processes; it recovers from its log."""

    name = "lose-postgres"

    def inject(self) -> str:
        assert self.site.postgres
        self.site.postgres.kill()
        return f"for {self.seconds:.1f} s"


class FreezePostgres(Fault):
    """Its connections stay and say nothing: the server takes no more of them, those that wait go on waiting."""

    name, hold, needs = "freeze-postgres", (2.0, 12.0), frozenset({POSTGRESQL})

    def inject(self) -> str:
        assert self.site.postgres
        server = psutil.Process(self.site.postgres.pid)
        self.processes = [server, *server.children(recursive=True)]
        for process in self.processes:
            process.suspend()
        return f"for {self.seconds:.1f} s"

    def heal(self) -> None:
        for process in self.processes:
            process.resume()


class FillRedisDisk(Fault):
    """Redis cannot write down what it does, and refuses to do more."""

    name, hold, needs = "fill-redis-disk", (2.0, 10.0), frozenset({DISKS, EMBEDDED})
    breaks_runs, moves_redis = True, True
    what: ClassVar[str] = "redis"

    def inject(self) -> str:
        self.site.disks[self.what].take_all()
        return f"for {self.seconds:.1f} s"

    def heal(self) -> None:
        self.site.disks[self.what].free()


class FillSqlDisk(FillRedisDisk):
    """The database can take nothing more."""

    name, hold, needs, what = "fill-sql-disk", (2.0, 12.0), frozenset({DISKS, SQLITE}), "sql"
    breaks_runs, moves_redis = False, False


class FillPostgresDisk(FillRedisDisk):
    """PostgreSQL can write nothing more. It ends itself when that meets its log, and then somebody starts it again."""

    name, needs, what = "fill-postgres-disk", frozenset({DISKS, POSTGRESQL}), "postgres"
    breaks_runs, moves_redis = False, False

    def heal(self) -> None:
        super().heal()
        until(self._answers, "PostgreSQL answers again")

    def _answers(self) -> bool:
        assert self.site.postgres
        if not psutil.pid_exists(self.site.postgres.pid):
            self.site.postgres.start()
        return self.site.postgres.answers()


class JumpingClock(Fault):
    """The time of day of one process jumps ahead or back, and later to where it belongs."""

    name, hold, needs, weight = "jumping-clock", (2.0, 8.0), frozenset({CLOCKS}), 2.0
    bends_time = True
    far: ClassVar[tuple[float, float]] = (5.0, 7200.0)

    def victims(self) -> tuple[str, ...]:
        return (*APIS, *SCHEDULERS, "watcher")

    def inject(self) -> str:
        assert self.site.clocks
        self.victim = self.rng.choice(self.victims())
        # What a scheduler puts off until later would wait for the clock of before.
        far = (5.0, 30.0) if self.victim in SCHEDULERS else self.far
        seconds = self.rng.uniform(*far) * self.rng.choice((1, -1))
        self.site.clocks.set(self.victim, seconds)
        return f"{self.victim} by {seconds:+.0f} s for {self.seconds:.1f} s"

    def heal(self) -> None:
        assert self.site.clocks
        self.site.clocks.set(self.victim, 0.0)


class JumpingRedisClock(JumpingClock):
    """That of Redis, by which leases and presence end."""

    name, needs, far = "jumping-redis-clock", frozenset({CLOCKS, EMBEDDED}), (2.0, 25.0)
    breaks_runs, moves_redis = True, True

    def victims(self) -> tuple[str, ...]:
        return ("redis",)
