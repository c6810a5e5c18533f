"""What can go wrong, one small class per kind: `inject` breaks something, `heal` mends what does not mend itself.

A fault says how long it lasts (`hold`, seconds between the two, chosen from the seed) and what it may do to the
promises: `forgets` when Redis may lose what only it knows, `breaks_calls` when an api process goes away under its
callers, `breaks_runs` when an attempt may lose its lease or its engine. The checker excuses nothing else.

Faults of what inferq stands on are in `surroundings`, and all that is known in `catalogue`.
"""

import contextlib
import random
import shutil
import signal
from abc import ABC, abstractmethod
from typing import ClassVar

import psutil

from tests.chaos.ground import EMBEDDED
from tests.chaos.site import APIS, LINKS, SCHEDULERS, SERVICES, Site, is_alive
from tests.e2e.stack import LEASE
from tests.e2e.waiting import until


class Fault(ABC):
    """One fault of one site; made anew for each time it happens."""

    name: ClassVar[str]
    hold: ClassVar[tuple[float, float]] = (0.0, 0.0)
    forgets: ClassVar[bool] = False
    breaks_calls: ClassVar[bool] = False
    breaks_runs: ClassVar[bool] = False
    bends_time: ClassVar[bool] = False
    """Times that processes wrote down may be wrong."""
    moves_redis: ClassVar[bool] = False
    """Stops, changes or replaces Redis itself: no two of these at once."""
    weight: ClassVar[float] = 1.0
    needs: ClassVar[frozenset[str]] = frozenset()
    """What of `ground` its site has to offer."""

    def __init__(self, site: Site, rng: random.Random) -> None:
        self.site = site
        self.rng = rng
        self.seconds = rng.uniform(*self.hold)

    @abstractmethod
    def inject(self) -> str:
        """Break it; what was broken, in words."""

    def heal(self) -> None:
        """Mend it, unless the supervisor does."""


def kill(site: Site, service: str, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        site.signal(service, number)


class Poison(Fault):
    """A prompt that kills its engine, and with it the other jobs there. The callers inject it, not the nemesis."""

    breaks_runs = True

    def inject(self) -> str:
        raise NotImplementedError


class KillService(Fault):
    """kill -9; the supervisor starts it again."""

    services: ClassVar[tuple[str, ...]]

    def inject(self) -> str:
        service = self.rng.choice(self.services)
        kill(self.site, service)
        return service


class KillApi(KillService):
    name, services, breaks_calls = "kill-api", APIS, True


class KillScheduler(KillService):
    name, services = "kill-scheduler", SCHEDULERS


class KillNode(KillService):
    name, services = "kill-node", ("node",)


class KillWatcher(KillService):
    name, services = "kill-watcher", ("watcher",)


class LoseSchedulers(Fault):
    """Both schedulers are away for longer than the leader's lock and any lease."""

    name, hold = "lose-schedulers", (4.0, 12.0)

    def inject(self) -> str:
        self.site.held |= set(SCHEDULERS)
        for service in SCHEDULERS:
            kill(self.site, service)
        return "both"

    def heal(self) -> None:
        self.site.held -= set(SCHEDULERS)


class StopService(Fault):
    """SIGTERM, as an update does it; the supervisor starts it again."""

    name, breaks_calls = "update", True

    def inject(self) -> str:
        service = self.rng.choice((*APIS, *SCHEDULERS, "watcher"))
        kill(self.site, service, signal.SIGTERM)
        return service


class _OfReplicas(Fault):
    """Something happens to a process of a replica. The site knows nothing of these: the node starts them again."""

    breaks_runs = True
    which: ClassVar[str]
    number: ClassVar[signal.Signals] = signal.SIGKILL

    def inject(self) -> str:
        found: psutil.Process | None = getattr(self.site, f"find_{self.which}")(self.rng)
        if found is None:
            return "nobody there"
        with contextlib.suppress(psutil.NoSuchProcess):
            found.send_signal(self.number)
        return f"pid {found.pid}"


class KillReplica(_OfReplicas):
    name, which, weight = "kill-replica", "replica", 2.0


class DrainReplica(_OfReplicas):
    name, which, number = "drain-replica", "replica", signal.SIGTERM


class KillEngine(_OfReplicas):
    name, which, weight = "kill-engine", "engine", 2.0


class KillShim(_OfReplicas):
    name, which = "kill-shim", "shim"


class _Frozen(Fault):
    """SIGSTOP, and SIGCONT after a while."""

    def victim(self) -> psutil.Process | None:
        raise NotImplementedError

    def inject(self) -> str:
        self.frozen = self.victim()
        if self.frozen is None:
            return "nobody there"
        with contextlib.suppress(psutil.NoSuchProcess):
            self.frozen.suspend()
        return f"pid {self.frozen.pid} for {self.seconds:.1f} s"

    def heal(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.frozen is not None:
                self.frozen.resume()


class FreezeReplica(_Frozen):
    """Longer than its lease: it comes back as a zombie that believes in its jobs."""

    name, hold, breaks_runs, weight = "freeze-replica", (LEASE * 1.2, LEASE * 2.2), True, 2.0

    def victim(self) -> psutil.Process | None:
        return self.site.find_replica(self.rng)


class HesitantReplica(FreezeReplica):
    """Shorter than its lease, but long enough to miss a renewal."""

    name, hold, weight = "hesitant-replica", (LEASE * 0.3, LEASE * 0.6), 1.0


class FreezeEngine(_Frozen):
    name, hold, breaks_runs = "freeze-engine", (1.0, 6.0), True

    def victim(self) -> psutil.Process | None:
        return self.site.find_engine(self.rng)


class _FrozenService(_Frozen):
    services: ClassVar[tuple[str, ...]]

    def victim(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.site.pids[self.rng.choice(self.services)])
        return None


class FreezeScheduler(_FrozenService):
    """Longer than the leader's lock: two believe that they lead."""

    name, hold, services = "freeze-scheduler", (3.0, 13.0), SCHEDULERS


class FreezeApi(_FrozenService):
    """Longer than the life of its reply stream, at the most."""

    name, hold, services, breaks_calls = "freeze-api", (2.0, 12.0), APIS, True


class FreezeNode(_FrozenService):
    name, hold, services = "freeze-node", (2.0, 12.0), ("node",)


class FreezeRedis(_FrozenService):
    name, hold, services = "freeze-redis", (1.0, 8.0), ("redis",)
    breaks_runs, moves_redis, needs = True, True, frozenset({EMBEDDED})


class LoseRedis(Fault):
    """kill -9, and started again on what it wrote down."""

    name, hold, weight, needs = "lose-redis", (0.0, 6.0), 2.0, frozenset({EMBEDDED})
    forgets, breaks_runs, moves_redis = True, True, True

    def inject(self) -> str:
        self.site.kill_redis()
        return f"for {self.seconds:.1f} s"

    def heal(self) -> None:
        self.site.start("redis")


class WipeRedis(LoseRedis):
    """Its memory is lost for good."""

    name, hold = "wipe-redis", (0.0, 4.0)

    def heal(self) -> None:
        self.site.replace_redis_data(None)
        super().heal()


class RollRedisBack(Fault):
    """It comes back as it was a few seconds ago: a lost disk and a backup, or a replica that lagged."""

    name, hold, needs = "roll-redis-back", (2.0, 8.0), frozenset({EMBEDDED})
    forgets, breaks_runs, moves_redis = True, True, True

    def inject(self) -> str:
        self.copy = self.site.folder / "older"
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.site.redis_data, self.copy)
        return f"by {self.seconds:.1f} s"

    def heal(self) -> None:
        self.site.kill_redis()
        self.site.replace_redis_data(self.copy)
        self.site.start("redis")


class FillRedis(Fault):
    """No memory is left: what would grow is refused."""

    name, hold, moves_redis = "fill-redis", (2.0, 8.0), True

    def inject(self) -> str:
        self._limit("1")
        return f"for {self.seconds:.1f} s"

    def heal(self) -> None:
        self._limit("0")

    def _limit(self, size: str) -> None:
        with self.site.redis() as client:
            client.config_set("maxmemory", size)


class LockSql(Fault):
    """Another program holds the database, for longer than SQLite waits or shorter."""

    name, hold = "lock-sql", (2.0, 12.0)

    def inject(self) -> str:
        self.release = self.site.hold_database()
        return f"for {self.seconds:.1f} s"

    def heal(self) -> None:
        self.release()


class _Network(Fault):
    """One group of processes and Redis do not hear each other well."""

    mode: ClassVar[str]
    needs = frozenset({EMBEDDED})

    def inject(self) -> str:
        self.link = self.rng.choice(LINKS)
        self.site.network(self.link, self.mode)
        return f"{self.link} for {self.seconds:.1f} s"

    def heal(self) -> None:
        self.site.network(self.link, "pass")


class BlackHole(_Network):
    name, mode, hold, breaks_runs = "black-hole", "blackhole", (1.0, 12.0), True


class HalfOpen(_Network):
    name, mode, hold, breaks_runs = "half-open", "deaf", (1.0, 12.0), True


class CutConnections(_Network):
    """Each answer that is on its way is lost with its connection; the next try gets through."""

    name, mode, weight = "cut", "cut", 2.0


class PowerLoss(Fault):
    """Everything dies at once; files stay as they are."""

    name, forgets, breaks_calls, breaks_runs, moves_redis = "power-loss", True, True, True, True
    keeps_redis: ClassVar[bool] = True
    needs = frozenset({EMBEDDED})

    def inject(self) -> str:
        self.site.held |= set(SERVICES)
        victims = [self.site.pids[name] for name in (*SERVICES, "redis")]
        victims += [process.pid for process in self.site.replicas_running()]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                psutil.Process(pid).kill()
        until(lambda: not any(map(is_alive, victims)), "everything is dead")
        return "everything"

    def heal(self) -> None:
        if not self.keeps_redis:
            self.site.replace_redis_data(None)
        self.site.start("redis")
        self.site.held -= set(SERVICES)


class TotalLoss(PowerLoss):
    """Everything dies, and Redis' memory with it."""

    name, keeps_redis, weight = "total-loss", False, 0.5
