"""Slow work beside a loop: each piece once at a time, a bounded number of them, and of one tenant only a part."""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from inferq import errors, process

log = logging.getLogger(__name__)

REST = 1.0
"""Seconds for which what has failed keeps its place: it would be begun anew at once."""


class Errands:
    """At most `most` pieces of work at a time, and `share` of them for one tenant. What fails is logged."""

    def __init__(self, name: str, *, most: int = 16, share: int = 4) -> None:
        self.changed = asyncio.Event()
        """Set when a piece was begun, or has ended: there may be another one to begin."""
        self._name = name
        self._most = most
        self._share = share
        self._going: dict[str, tuple[str, asyncio.Task[None]]] = {}

    @property
    def free(self) -> int:
        return self._most - len(self._going)

    @property
    def busy(self) -> list[str]:
        """Ids of the work that goes on."""
        return list(self._going)

    @property
    def crowded(self) -> list[str]:
        """Tenants that have their share."""
        counts = Counter(tenant for tenant, _ in self._going.values())
        return [tenant for tenant, count in counts.items() if count >= self._share]

    def start(self, work_id: str, tenant: str, work: Coroutine[Any, Any, object]) -> bool:
        """Begin a piece of work; False when there is no room for it, or it goes on already."""
        if not self.free or work_id in self._going or tenant in self.crowded:
            work.close()
            return False
        task = asyncio.create_task(self._do(work_id, work))
        self._going[work_id] = tenant, task

        def forget(_: object) -> None:
            work.close()  # it may have been ended before it began
            del self._going[work_id]
            self.changed.set()

        task.add_done_callback(forget)
        self.changed.set()
        return True

    async def stop(self) -> None:
        """End what goes on."""
        await process.end_tasks([task for _, task in self._going.values()])

    async def _do(self, work_id: str, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except errors.InferqError as error:
            log.warning("%s of %s: %s", self._name, work_id, error.message)
            await asyncio.sleep(REST)
        except Exception:
            log.exception("%s of %s failed", self._name, work_id)
            await asyncio.sleep(REST)
