"""Prometheus text: this process's own numbers, and the installation's as they are at the moment of the scrape.

The latter come from Redis and SQL, so every api process shows the same ones; add them over one process only.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from api.context import Context
from api.fleet import PATIENCE, Fleet, Part, read_fleet, read_parts
from inferq import errors
from inferq.job import JobState

Counts = dict[tuple[str, JobState], int]


async def expose(context: Context) -> bytes:
    """The whole page. Parts that are away are missing from it, and `inferq_component_up` says so."""
    fleet, parts, counts = await asyncio.gather(read_fleet(context), read_parts(context), _counts(context))
    own = list(context.telemetry.registry.collect())
    return generate_latest(
        _Scrape(
            [
                *own,
                *_components(*parts),
                *_queues(fleet),
                *_jobs(counts),
                *_replicas(fleet),
                *_devices(fleet),
                *_hooks(fleet),
            ]
        )
    )


@dataclass(frozen=True, slots=True)
class _Scrape:
    """What `generate_latest` wants of a registry."""

    metrics: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


async def _counts(context: Context) -> Counts:
    try:
        async with asyncio.timeout(PATIENCE):
            return await context.storage.ledger.counts()
    except (errors.StoreUnavailable, TimeoutError):
        return {}


def _gauge(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"inferq_{name}", text, labels=labels)


def _components(redis: Part, database: Part) -> Iterator[Metric]:
    up = _gauge("component_up", "1 when the part answers.", ("component",))
    up.add_metric(["redis"], float(redis.ok))
    up.add_metric(["database"], float(database.ok))
    yield up


def _queues(fleet: Fleet) -> Iterator[Metric]:
    waiting = _gauge("queue_jobs", "Waiting jobs.", ("model", "lane"))
    size = _gauge("queue_bytes", "Bytes of waiting request bodies.", ("model",))
    for model, depths in (fleet.depths or {}).items():
        for lane, count in depths.items():
            if lane == "bytes":
                size.add_metric([model], count)
            else:
                waiting.add_metric([model, lane], count)
    ratio = HistogramMetricFamily(
        "inferq_eta_ratio",
        "Waits as they came out, divided by what was promised at first.",
        labels=("model",),
    )
    for model, promised in (fleet.promises or {}).items():
        ratio.add_metric([model], list(promised.ratios.items()), promised.sum)
    yield from (waiting, size, ratio)


def _jobs(counts: Counts) -> Iterator[Metric]:
    jobs = _gauge("jobs", "Jobs in the ledger among the newest ones.", ("model", "state"))
    for (model, state), count in counts.items():
        jobs.add_metric([model, state], count)
    yield jobs


def _replicas(fleet: Fleet) -> Iterator[Metric]:
    count = _gauge("replicas", "Resident copies by state.", ("model", "device", "state"))
    labels = ("replica", "model")
    families = {
        "slots": _gauge("replica_slots", "Jobs a replica may run at once.", labels),
        "busy": _gauge("replica_busy_slots", "Jobs a replica runs now.", labels),
        "memory_bytes": _gauge("replica_memory_bytes", "Memory of the engine.", labels),
        "load_seconds": _gauge("replica_load_seconds", "Measured time from start to ready.", labels),
        "jobs_done": _gauge("replica_jobs_done", "Jobs ended since the replica started.", labels),
        "restarts": _gauge("replica_restarts", "Engine starts after the first.", labels),
    }
    circuit = _gauge(
        "replica_circuit_open", "1 while a replica takes no job because its engine keeps failing.", labels
    )
    rests = _gauge("model_circuit_open", "1 while no replica of the model takes a job.", ("model",))
    for name in sorted({replica.model for replica in fleet.replicas or []}):
        rests.add_metric([name], fleet.circuit_of(name) == "open")
    states: dict[tuple[str, str, str], int] = {}
    for replica in fleet.replicas or []:
        key = (replica.model, replica.device, replica.state)
        states[key] = states.get(key, 0) + 1
        circuit.add_metric([replica.name, replica.model], replica.circuit != "closed")
        for field, family in families.items():
            value = getattr(replica, field)
            if value is not None:
                family.add_metric([replica.name, replica.model], value)
    for key, number in states.items():
        count.add_metric(key, number)
    yield from (count, circuit, rests, *families.values())


def _hooks(fleet: Fleet) -> Iterator[Metric]:
    labels = ("hook", "function", "outcome")
    calls = CounterMetricFamily("inferq_hook_calls", "Calls of hooks in all processes.", labels=labels)
    for names, number in (fleet.hooks or {}).items():
        calls.add_metric(names, number)
    yield calls


def _devices(fleet: Fleet) -> Iterator[Metric]:
    memory = _gauge("device_memory_bytes", "Memory of a device.", ("node", "device", "kind"))
    host = _gauge("node_memory_bytes", "Memory of a host.", ("node", "kind"))
    processor = _gauge("node_cpu_ratio", "Use of a host's processors, from 0 to 1.", ("node",))
    seen = _gauge("node_seen_timestamp_seconds", "Last sign of life of a node.", ("node",))
    for node in fleet.nodes or []:
        for device in node.devices:
            for kind in ("total", "free"):
                value = device.get(f"memory_{kind}")
                if value is not None:
                    memory.add_metric([node.name, str(device.get("name")), kind], value)
        host.add_metric([node.name, "total"], node.memory_total)
        host.add_metric([node.name, "used"], node.memory_used)
        processor.add_metric([node.name], node.cpu_percent / 100)
        seen.add_metric([node.name], node.seen_at)
    yield from (memory, host, processor, seen)
