"""What operators have paused, drained or limited: SQL holds it, and Redis gets a copy for the scripts.

A pause stops claims: what waits keeps its place, what runs goes on. A paused tenant comes back without credit for the
time it was away. A drained replica or node claims nothing more. Limits on running jobs come from the configuration.
"""

from dataclasses import dataclass
from enum import StrEnum

from inferq import errors
from inferq.config import Settings
from inferq.lanes import Lane
from inferq.scheduling.placement import Drained
from queues.connection import Client, translated
from queues.scripts import Scripts
from storage.pauses import Pause, PauseStore

TENANT_LIMIT = "running:tenant:"
"""Before the name of a tenant: the field that bounds its running jobs."""


class Kind(StrEnum):
    """What can be stopped, and the word for it."""

    MODEL = "model"
    TENANT = "tenant"
    LANE = "lane"
    REPLICA = "replica"
    NODE = "node"

    @property
    def verb(self) -> str:
        return "drain" if self in (Kind.REPLICA, Kind.NODE) else "pause"


@dataclass(frozen=True, slots=True)
class Change:
    """`queued` is False when only SQL knows, because Redis is away: the scheduler copies it later."""

    pause: Pause | None
    queued: bool


class Controls:
    def __init__(self, redis: Client, settings: Settings, store: PauseStore):
        self._redis = redis
        self._prefix = settings.queue.prefix
        self._settings = settings
        self._scripts = Scripts(redis, settings.queue)
        self._store = store

    async def pause(self, kind: Kind, name: str, reason: str = "") -> Change:
        """Stop claims for it. Again with another reason: the new reason. Raises InvalidRequest, StoreUnavailable."""
        _check(kind, name)
        pause = await self._store.put(kind.value, name, reason or None)
        return Change(pause, await self._tell(kind, name, reason or kind.verb))

    async def resume(self, kind: Kind, name: str) -> Change:
        """Allow claims again; nothing happens when it was not stopped. Raises StoreUnavailable."""
        await self._store.remove(kind.value, name)
        return Change(None, await self._tell(kind, name, ""))

    async def stopped(self) -> list[Pause]:
        """All pauses and drains, oldest first. Raises StoreUnavailable."""
        return await self._store.list()

    async def copy(self) -> list[str]:
        """Make Redis have what SQL and the configuration say; the fields that had to change.

        Somebody may pause or resume between the look at SQL and the copy, which would undo it: then once more.
        """
        changed: list[str] = []
        copied: list[Pause] | None = None
        stopped = await self._store.list()
        while stopped != copied:
            changed += await self._write(stopped)
            copied, stopped = stopped, await self._store.list()
        return changed

    async def _write(self, stopped: list[Pause]) -> list[str]:
        fields: list[str] = []
        for pause in stopped:
            fields += [_field(Kind(pause.kind), pause.name), pause.reason or Kind(pause.kind).verb]
        for field, most in running_limits(self._settings).items():
            fields += [field, str(most)]
        async with translated():
            return [field.decode() for field in await self._scripts("control", 1, *fields)]

    async def _tell(self, kind: Kind, name: str, value: str) -> bool:
        try:
            async with translated():
                await self._scripts("control", 0, _field(kind, name), value)
        except errors.QueueUnavailable:
            return False
        return True


async def drained(redis: Client, prefix: str) -> Drained:
    """Which replicas and nodes claim nothing. Raises QueueUnavailable."""
    async with translated():
        fields = [field.decode() for field in await redis.hkeys(f"{prefix}control")]

    def named(kind: Kind) -> frozenset[str]:
        start = _field(kind, "")
        return frozenset(field.removeprefix(start) for field in fields if field.startswith(start))

    return Drained(replicas=named(Kind.REPLICA), nodes=named(Kind.NODE))


def running_limits(settings: Settings) -> dict[str, int]:
    """The bounds on running jobs as fields of the control hash."""
    limits: dict[str, int] = {}
    for name, tenant in settings.tenants.items():
        if tenant.max_running is not None:
            limits["running:tenants" if name == "*" else f"{TENANT_LIMIT}{name}"] = tenant.max_running
    for name, model in settings.served.items():
        if model.max_running is not None:
            limits[f"running:model:{name}"] = model.max_running
        for lane, most in model.max_lane_running.items():
            limits[f"running:lane:{name} {lane}"] = most
    return limits


def _check(kind: Kind, name: str) -> None:
    if kind is Kind.LANE and name not in set(Lane):
        raise errors.InvalidRequest(f"there is no lane {name!r}: high, medium or low", param="name")


def _field(kind: Kind, name: str) -> str:
    return f"{kind.verb}:{kind.value}:{name}"
