"""What waits and runs of each model, by lane and by tenant, as the scripts count it. Reads only."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from inferq.lanes import Lane
from queues.connection import Client, translated

BOUNDS = ("0.25", "0.5", "0.8", "1.25", "2", "4")
"""Those that `claiming.lua` counts by."""


@dataclass(frozen=True, slots=True)
class TenantCount:
    """`device_seconds` is the work that waits, as it is estimated."""

    name: str
    waiting: int
    running: int
    device_seconds: float


@dataclass(frozen=True, slots=True)
class ModelQueue:
    """One model's jobs. `device_seconds` is the work that waits, `bytes` its request bodies."""

    model: str
    waiting: dict[str, int]
    running: dict[str, int]
    bytes: int
    device_seconds: float
    tenants: list[TenantCount] = field(default_factory=list)


async def read(redis: Client, prefix: str, models: Iterable[str]) -> list[ModelQueue]:
    """The queues of these models, those without a job too. Raises QueueUnavailable."""
    names = list(models)
    async with translated():
        pipe = redis.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(f"{prefix}order:{name}")
        found = await pipe.execute()
    return [_queue_of(name, record) for name, record in zip(names, found, strict=True)]


@dataclass(frozen=True, slots=True)
class Promises:
    """How promised waits came out: `ratios` counts real / promised up to each bound, the last is all of them."""

    ratios: dict[str, int]
    sum: float


async def promises(redis: Client, prefix: str, models: Iterable[str]) -> dict[str, Promises]:
    """Of those of these models that have kept or broken one. Raises QueueUnavailable."""
    names = list(models)
    async with translated():
        pipe = redis.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(f"{prefix}promised:{name}")
        found = await pipe.execute()
    return {name: _promises_of(record) for name, record in zip(names, found, strict=True) if record}


def _promises_of(record: dict[bytes, bytes]) -> Promises:
    bounds = {name.decode()[3:]: int(value) for name, value in record.items() if name.startswith(b"le:")}
    counts = {bound: bounds.get(bound, 0) for bound in BOUNDS}
    return Promises({**counts, "+Inf": int(record.get(b"count", 0))}, float(record.get(b"sum", 0)))


def _queue_of(model: str, record: dict[bytes, bytes]) -> ModelQueue:
    counts = {name.decode(): value for name, value in record.items()}

    def number(name: str) -> int:
        return int(counts.get(name, 0))

    names = {name[2:] for name in counts if name.startswith("q:")} | {
        name[3:] for name in counts if name.startswith("rt:")
    }
    tenants = [
        TenantCount(name, number(f"q:{name}"), number(f"rt:{name}"), float(counts.get(f"est:{name}", 0)))
        for name in sorted(names)
    ]
    return ModelQueue(
        model=model,
        waiting={lane.value: number(f"n:{lane}") for lane in Lane},
        running={lane.value: number(f"rl:{lane}") for lane in Lane},
        bytes=number("bytes"),
        device_seconds=sum(tenant.device_seconds for tenant in tenants),
        tenants=tenants,
    )
