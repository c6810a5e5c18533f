"""Who is there: replicas, nodes and api processes, each a Redis record that lapses when its owner is gone."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import orjson

from inferq.config import ModelSettings
from queues.connection import Client

PRESENCE_TTL = 10
"""Seconds without a sign of life after which a process counts as gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaInfo:
    """One resident copy of a model. `state` is the engine's: stopped, starting, ready, stopping or failed.

    `load_seconds` is the measured time from start to ready, `memory_bytes` the engine's resident memory, `facts` what
    the engine said of its model when it became ready. `circuit` is that of its breaker: closed, open (for
    `circuit_left` seconds more no job is taken) or half_open (one job is tried).
    """

    name: str
    model: str
    device: str
    node: str
    pid: int
    state: str
    since: float
    slots: int
    busy: int = 0
    engine_pid: int | None = None
    memory_bytes: int | None = None
    load_seconds: float | None = None
    jobs_done: int = 0
    idle_since: float | None = None
    restarts: int = 0
    draining: bool = False
    error: str | None = None
    circuit: str = "closed"
    circuit_left: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


def circuit_of(replicas: Iterable[ReplicaInfo]) -> tuple[str, float]:
    """That of a model, by its replicas: open, and for how many seconds more, only when each that lives is open."""
    living = [each for each in replicas if each.circuit != "closed" or each.state in ("starting", "ready")]
    if not living or any(each.circuit == "closed" for each in living):
        return "closed", 0.0
    if any(each.circuit == "half_open" for each in living):
        return "half_open", 0.0
    return "open", min(each.circuit_left for each in living)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What is known of a model after its last load; it outlives the replica. `source` is `loaded_as` of then.

    `load_seconds` and `memory_bytes` are measured, `facts` are the engine's own, `at` is when (unix seconds).
    """

    source: str
    device: str
    at: float
    load_seconds: float | None = None
    memory_bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def loaded_as(model: ModelSettings) -> str:
    """What a load is a load of: what was learnt of another engine or source says nothing about this one."""
    return f"{model.engine} {model.source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """A host and its devices; each device a mapping with name, kind, product, memory_total, memory_free (bytes)."""

    name: str
    pid: int
    seen_at: float
    cpu_percent: float = 0.0
    memory_total: int = 0
    memory_used: int = 0
    devices: list[dict[str, Any]] = field(default_factory=list)


Info = TypeVar("Info", ReplicaInfo, NodeInfo, Learnt)


def _known(kind: type[Info], record: dict[str, Any]) -> Info:
    """A record as this version reads it: while hosts are upgraded one by one, others write fields it does not know."""
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in record.items() if name in names})


class Presence:
    """Reads and writes the records. An index set per kind is cleaned of lapsed names on every reading."""

    def __init__(self, redis: Client, prefix: str):
        self._redis = redis
        self._prefix = prefix

    async def show_replica(self, info: ReplicaInfo) -> None:
        await self._show("replica", info.name, asdict(info))

    async def show_node(self, info: NodeInfo) -> None:
        await self._show("node", info.name, asdict(info))

    async def show_api(self, name: str) -> None:
        await self._show("api", name, {"name": name})

    async def hide(self, kind: str, name: str) -> None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.delete(f"{self._prefix}{kind}:{name}")
        pipe.srem(f"{self._prefix}{kind}s", name)
        await pipe.execute()

    async def learn(self, model: str, learnt: Learnt) -> None:
        """Keep what the last load showed; a hash per model, each field JSON."""
        record = {name: orjson.dumps(value) for name, value in asdict(learnt).items()}
        await self._redis.hset(self._learnt_key(model), mapping=record)

    async def learnt(self, models: Iterable[str]) -> dict[str, Learnt]:
        """What is known of these models; those never loaded are missing."""
        names = list(models)
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(self._learnt_key(name))
        records = await pipe.execute() if names else []
        return {
            name: _known(Learnt, {key.decode(): orjson.loads(value) for key, value in record.items()})
            for name, record in zip(names, records, strict=True)
            if record
        }

    def _learnt_key(self, model: str) -> str:
        return f"{self._prefix}learnt:{model}"

    async def replicas(self) -> list[ReplicaInfo]:
        return [_known(ReplicaInfo, record) for record in await self._read("replica")]

    async def nodes(self) -> list[NodeInfo]:
        return [_known(NodeInfo, record) for record in await self._read("node")]

    async def _show(self, kind: str, name: str, record: dict[str, Any]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        # A full Redis refuses to write the record, but lets the old one live on.
        pipe.expire(f"{self._prefix}{kind}:{name}", PRESENCE_TTL)
        pipe.set(f"{self._prefix}{kind}:{name}", orjson.dumps(record), ex=PRESENCE_TTL)
        pipe.sadd(f"{self._prefix}{kind}s", name)
        await pipe.execute()

    async def _read(self, kind: str) -> list[dict[str, Any]]:
        index = f"{self._prefix}{kind}s"
        names = sorted(await self._redis.smembers(index))
        if not names:
            return []
        values = await self._redis.mget([f"{self._prefix}{kind}:{name.decode()}" for name in names])
        gone = [name for name, value in zip(names, values, strict=True) if value is None]
        if gone:
            await self._redis.srem(index, *gone)
        return [orjson.loads(value) for value in values if value is not None]
