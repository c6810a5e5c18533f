"""The state of the installation as the API shows it: replicas, nodes, queues, and which parts answer.

Every reading is bounded in time and optional: with Redis or SQL away the answer says so instead of failing.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from api.auth import Caller
from api.context import Context
from inferq import errors
from inferq.config import ModelSettings
from inferq.config.settings import PULL_MODEL
from inferq.hooks import Counts
from inferq.lanes import Lane
from inferq.scheduling.placement import NOTHING, Drained
from queues import controls
from queues.controls import Kind
from queues.hook_counts import hook_counts
from queues.overview import Promises, promises
from queues.presence import Learnt, NodeInfo, ReplicaInfo, circuit_of, loaded_as
from storage.pauses import Pause

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that one reading may take: probes ask often and must not pile up behind a part that hangs."""

_ORDER = ("ready", "starting", "stopping", "failed", "stopped")
"""A model with several replicas is in the first of these states that one of them is in."""


@dataclass(frozen=True, slots=True)
class Part:
    """Redis or the database: does it answer, and if not, why."""

    ok: bool
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok} if self.ok else {"ok": False, "error": self.error}


@dataclass(frozen=True, slots=True)
class Fleet:
    """None where Redis did not answer."""

    replicas: list[ReplicaInfo] | None
    nodes: list[NodeInfo] | None
    depths: dict[str, dict[str, int]] | None
    learnt: dict[str, Learnt] | None = None
    promises: dict[str, Promises] | None = None
    hooks: Counts | None = None
    drained: Drained | None = None

    def state_of(self, model: str) -> str:
        """`unknown` with Redis away, else as its replicas are."""
        if self.replicas is None:
            return "unknown"
        states = {replica.state for replica in self.replicas if replica.model == model}
        return next((state for state in _ORDER if state in states), "stopped")

    def circuit_of(self, model: str) -> str | None:
        """Open when every replica of the model takes no job, since its engines keep failing. Those that were told to
        take none count for nothing.
        """
        if self.replicas is None:
            return None
        drained = self.drained or NOTHING
        mine = (each for each in self.replicas if each.model == model)
        return circuit_of(r for r in mine if not r.draining and not drained.has(r.name, r.node))[0]

    def waiting(self, model: str) -> dict[str, int] | None:
        """Waiting jobs per lane."""
        if self.depths is None:
            return None
        depths = self.depths.get(model, {})
        return {lane.value: depths.get(lane.value, 0) for lane in Lane}

    def of(self, model: str) -> list[ReplicaInfo]:
        """The replicas of a model, those that can take work first."""
        mine = [replica for replica in self.replicas or [] if replica.model == model]
        return sorted(mine, key=lambda r: _ORDER.index(r.state) if r.state in _ORDER else len(_ORDER))

    def knowledge_of(self, name: str, model: ModelSettings) -> Learnt | None:
        """What the last load of this model showed, whether it is loaded now or not."""
        found = (self.learnt or {}).get(name)
        return found if found and found.source == loaded_as(model) else None

    @property
    def loaded(self) -> list[str]:
        """Configured models with a replica that is ready."""
        ready = {replica.model for replica in self.replicas or [] if replica.state == "ready"}
        return sorted(ready - {PULL_MODEL})

    @property
    def has_accelerator(self) -> bool:
        """Whether a node has a device other than its processor."""
        kinds = [str(device.get("kind", "cpu")) for node in self.nodes or [] for device in node.devices]
        return any(kind != "cpu" for kind in kinds)


async def read_fleet(context: Context) -> Fleet:
    queue = context.gateway.queue
    readings, drained = await asyncio.gather(
        asyncio.gather(
            read_or_none(queue.replicas()),
            read_or_none(queue.nodes()),
            read_or_none(queue.depths()),
            read_or_none(queue.learnt(context.catalog.models)),
            read_or_none(promises(queue.redis, queue.prefix, context.catalog.models)),
            read_or_none(hook_counts(queue.redis, queue.prefix)),
        ),
        read_or_none(controls.drained(queue.redis, queue.prefix)),
    )
    return Fleet(*readings, drained)


async def read_parts(context: Context) -> tuple[Part, Part]:
    """Redis and the database."""
    return await asyncio.gather(_ping(context.gateway.queue.ping()), _ping(context.storage.ledger.ping()))


def model_object(context: Context, fleet: Fleet, name: str, model: ModelSettings) -> dict[str, Any]:
    """A model as `GET /v1/models` shows it."""
    measured = _measured(fleet, name, model)
    return {
        "id": name,
        "object": "model",
        "created": int(context.started),
        "owned_by": "inferq",
        "info": {
            "type": model.type,
            "engine": model.engine,
            "state": fleet.state_of(name),
            "circuit": fleet.circuit_of(name),
            "device": model.device,
            "endpoints": _endpoints(context, model, measured["facts"]),
            "limits": model.limits.given(),
            "slots": model.slots,
            "warm": model.warm,
            "aliases": model.aliases,
            "description": model.description,
            "waiting": fleet.waiting(name),
            **measured,
        },
    }


def _endpoints(context: Context, model: ModelSettings, facts: Mapping[str, Any]) -> list[str]:
    """Those that its engine has, without those that this model cannot serve, once it was loaded and has said so."""
    said = facts.get("endpoints")
    offered = context.catalog.endpoints_of(model)
    return [f"/v1/{path}" for path in offered if not isinstance(said, list) or path in said]


def last_load(fleet: Fleet, name: str, model: ModelSettings) -> ReplicaInfo | Learnt | None:
    """What the latest load that went well has shown; None when none has."""
    ready = next((replica for replica in fleet.of(name) if replica.state == "ready"), None)
    return ready or fleet.knowledge_of(name, model)


def _measured(fleet: Fleet, name: str, model: ModelSettings) -> dict[str, Any]:
    """What loads have shown: of the replica that is there, else of the last one that was."""
    known = last_load(fleet, name, model)
    facts = known.facts if known else {}
    return {
        "devices": [replica.device for replica in fleet.of(name)],
        "load_seconds": known.load_seconds if known else None,
        "memory_bytes": known.memory_bytes if known else None,
        "context": model.context or facts.get("context"),
        "facts": facts,
    }


def replica_object(replica: ReplicaInfo) -> dict[str, Any]:
    return asdict(replica)


def node_object(node: NodeInfo, replicas: list[ReplicaInfo]) -> dict[str, Any]:
    """A node as `GET /v1/nodes` shows it, with what runs there."""
    here = [replica_object(each) for each in replicas if each.node == node.name]
    return {"id": node.name, "object": "node", **asdict(node), "replicas": here}


async def stopped(context: Context, caller: Caller) -> list[dict[str, Any]]:
    """What is paused or drained, as the API shows it to this caller: of tenants only those whose jobs it sees.

    Raises StoreUnavailable.
    """
    found = await context.gateway.controls.stopped()
    return [pause_object(each) for each in found if each.kind != Kind.TENANT or caller.sees(each.name)]


def pause_object(pause: Pause) -> dict[str, Any]:
    """What is paused or drained, as the API shows it."""
    return {
        "object": "pause",
        "kind": pause.kind,
        "name": pause.name,
        "action": Kind(pause.kind).verb,
        "reason": pause.reason,
        "created_at": pause.created_at,
    }


async def read_or_none(question: Awaitable[T]) -> T | None:
    """The answer, or None when it does not come in time."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await question
    except (errors.Unavailable, TimeoutError):
        return None


async def _ping(question: Awaitable[None]) -> Part:
    try:
        async with asyncio.timeout(PATIENCE):
            await question
    except errors.Unavailable as error:
        return Part(False, error.message)
    except TimeoutError:
        return Part(False, f"gave no answer within {PATIENCE:g} s")
    return Part(True)
