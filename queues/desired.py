"""The placement loop: what the leading scheduler wants each node to have, written where the nodes read it."""

import time

import orjson

from inferq.config import Settings
from inferq.scheduling.placement import Device, ModelDemand, Place, Resident, place
from queues import controls
from queues.connection import Client, translated
from queues.presence import ReplicaInfo
from queues.queue import JobQueue


class Placement:
    """Reads demand and presence, decides by the pure function, writes one record per node."""

    def __init__(self, redis: Client, queue: JobQueue, settings: Settings):
        self._redis = redis
        self._queue = queue
        self._settings = settings

    async def run_once(self) -> dict[str, list[Place]]:
        depths = await self._queue.depths()
        waiting = {name: lanes["high"] + lanes["medium"] + lanes["low"] for name, lanes in depths.items()}
        nodes = await self._queue.nodes()
        devices = [Device(node.name, str(device["name"])) for node in nodes for device in node.devices]
        now = time.time()
        residents = [_resident(replica, now) for replica in await self._queue.replicas()]
        drained = await controls.drained(self._redis, self._settings.queue.prefix)
        wanted = place(self._demands(waiting), devices, residents, drained)
        async with translated():
            pipe = self._redis.pipeline(transaction=False)
            for node, places in wanted.items():
                record = [
                    {"name": p.name, "model": p.model, "device": p.device, "node": p.node} for p in places
                ]
                pipe.set(desired_key(self._settings.queue.prefix, node), orjson.dumps(record))
            await pipe.execute()
        return wanted

    def _demands(self, waiting: dict[str, int]) -> list[ModelDemand]:
        return [
            ModelDemand(
                name=name,
                device=model.device,
                replicas=model.replicas,
                warm=model.warm,
                idle_timeout=model.idle_timeout,
                waiting=waiting.get(name, 0),
            )
            for name, model in self._settings.served.items()
        ]


def desired_key(prefix: str, node: str) -> str:
    return f"{prefix}desired:{node}"


async def read_desired(redis: Client, prefix: str, node: str) -> list[Place] | None:
    """What a node should have; None before the scheduler has said anything."""
    async with translated():
        record = await redis.get(desired_key(prefix, node))
    return None if record is None else [Place(**item) for item in orjson.loads(record)]


def _resident(replica: ReplicaInfo, now: float) -> Resident:
    return Resident(
        place=Place(name=replica.name, model=replica.model, device=replica.device, node=replica.node),
        busy=replica.busy,
        idle_for=now - (replica.idle_since or replica.since),
    )
