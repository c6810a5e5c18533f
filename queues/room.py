"""Whether any device has the memory that a model needs. A reading of the nodes serves two seconds of requests."""

import time

from inferq import errors
from inferq.config import ModelSettings
from queues.presence import NodeInfo
from queues.queue import JobQueue

FRESH = 2.0
_GIB = 2**30


class Room:
    def __init__(self, queue: JobQueue):
        self._queue = queue
        self._nodes: list[NodeInfo] = []
        self._read_at = -FRESH

    async def refuse_too_big(self, name: str, model: ModelSettings) -> None:
        """Raises ModelTooLarge for a model that no device of any node could ever hold.

        Nothing is said while no node has reported, or one has a device whose memory nobody knows.
        """
        if model.memory is None:
            return
        found = [
            (int(device.get("memory_total", 0)), f"{device['name']} of {node.name}")
            for node in await self._current()
            for device in node.devices
            if model.device in ("auto", device["name"])
        ]
        if not found or any(not memory or memory >= model.memory for memory, _ in found):
            return
        devices = ", ".join(f"{where} has {memory / _GIB:.1f} GiB" for memory, where in sorted(found)[::-1])
        raise errors.ModelTooLarge(
            f"The model {name!r} needs {model.memory / _GIB:.1f} GiB of memory, and no device has that much: "
            f"{devices}.",
            param="model",
        )

    async def _current(self) -> list[NodeInfo]:
        if time.monotonic() - self._read_at >= FRESH:
            self._read_at = time.monotonic()
            try:
                self._nodes = await self._queue.nodes()
            except errors.Unavailable:
                self._nodes = []
        return self._nodes
